"""Tests of the devstack's parts, each on its own."""
