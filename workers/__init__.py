"""Processes: settings, wiring and the onebox command. Nobody imports this package."""
