"""Processes: worker, register API, relay, and their wiring. Only `cli` imports this package."""
