"""The whole stack on one machine, for development and tests. Never in a production image."""
