"""The agent runtime behind the box script, as an unmodified runtime of the field would be.

It knows the register protocol and A2A, and nothing of Onebox. Standard library only: a dozen start at once.
"""
