"""Planning and progress of a fleet rollout."""
