"""Temporal specifics of workers: schedules, versioning, and two SDK workarounds."""
