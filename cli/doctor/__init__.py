"""`onebox doctor`: looks whether everything that the processes need is there, and says what to fix.

It changes nothing, and prints no secret.
"""
