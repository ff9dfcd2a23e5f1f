"""Checks the invariants I1 to I12: functions from evidence to violations.

Neither this package nor its imports belong to the product, so that its mistakes are not repeated here.
"""
