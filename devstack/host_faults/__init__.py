"""Loaded by box processes only; see `sitecustomize`."""
