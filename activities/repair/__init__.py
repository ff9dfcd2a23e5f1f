"""Finds workflow runs stuck on a non-determinism error, and resets them."""
