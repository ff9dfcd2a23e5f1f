"""Metrics and spans of activities."""
