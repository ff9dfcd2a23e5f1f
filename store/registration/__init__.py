"""Credentials, registrations, heartbeats, and the audit log."""
