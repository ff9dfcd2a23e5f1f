"""Automatic reset of workflow runs that fail with a non-determinism error."""
