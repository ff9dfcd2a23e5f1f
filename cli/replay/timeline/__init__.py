"""Builds the timeline of a workspace from its workflow history, and renders it as text, JSON or HTML.

Works on values: the callers fetch and replay histories.
"""
