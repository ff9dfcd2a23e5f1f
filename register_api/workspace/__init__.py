"""Endpoints that read a workspace, its audit log and other workspaces' addresses, and manage tokens."""
