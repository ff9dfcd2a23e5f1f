"""Typed Python client of the control plane: for tools, the command line and tests.

Imports `temporalio`, `pydantic` and the message contracts of `workflows`, and nothing else.
"""
