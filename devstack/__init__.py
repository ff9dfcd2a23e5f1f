"""The whole stack on one machine, for development and tests. Production images do not contain it."""
