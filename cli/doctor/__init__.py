"""`onebox doctor`: checks configuration and dependencies, and says how to fix what is wrong.

One module per subject. Checks change nothing, and the report contains no secret.
"""
