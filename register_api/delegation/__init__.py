"""The delegation endpoints."""
