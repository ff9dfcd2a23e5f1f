"""Settings of the processes, read from environment variables."""
