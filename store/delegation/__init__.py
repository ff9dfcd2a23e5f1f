"""Delegations, and whether agents process work."""
