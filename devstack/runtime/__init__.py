"""The agent runtime behind the box script; behaves like an unmodified runtime in the field.

It speaks the register protocol and A2A. Standard library only, because a dozen start at once.
"""
