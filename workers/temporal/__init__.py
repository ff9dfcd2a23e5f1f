"""How workers use Temporal: schedules, versioning, and two SDK workarounds."""
