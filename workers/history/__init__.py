"""Replay of recorded histories with the present code, and where the two differ."""
