"""Tests of the devstack's parts, one at a time."""
