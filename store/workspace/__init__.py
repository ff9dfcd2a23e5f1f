"""Workspaces, generations, launches, and the status on the workspace record."""
