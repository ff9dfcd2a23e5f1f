"""Orchestration: what happens to a workspace, in which order. Deterministic, no I/O."""
