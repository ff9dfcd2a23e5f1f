"""The HTTP API that boxes and agents call."""
