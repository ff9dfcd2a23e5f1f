"""Baselines: ceilings, a straight-line script, and the alternative designs as contenders."""
