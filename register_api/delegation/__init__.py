"""The endpoints of delegations."""
