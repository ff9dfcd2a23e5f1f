"""Connections and migrations."""
