"""Orchestration: deterministic workflow code and the pure rules behind it. No I/O."""
