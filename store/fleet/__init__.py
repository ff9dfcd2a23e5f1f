"""What spans workspaces: recreate permits, watchdog queries, metrics."""
