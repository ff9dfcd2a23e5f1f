"""Health endpoints, dependency checks and graceful shutdown."""
