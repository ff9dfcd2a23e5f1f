"""Fleet permits and the watchdog."""
