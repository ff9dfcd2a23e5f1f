"""A fleet rollout: many workspaces recreated, a bounded share at a time."""
