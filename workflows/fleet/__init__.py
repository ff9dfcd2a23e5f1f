"""Rules about many workspaces at once: circuit breaker, concurrency limit, watchdog."""
