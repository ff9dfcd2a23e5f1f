"""HTTP basics: configuration, request limits, client address, error codes, response bodies."""
