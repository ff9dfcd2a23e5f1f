"""Baselines: ceilings, and a straight-line script."""
