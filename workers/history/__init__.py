"""Replay of recorded histories with the current code, and where they differ."""
