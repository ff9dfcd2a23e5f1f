"""Authentication and authorization: credentials, caller identity, decision tables, audit log."""
