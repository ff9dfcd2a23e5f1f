"""HTTP itself: configuration, limits, client address, error codes and bodies."""
