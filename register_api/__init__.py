"""What boxes call: register, heartbeat, and the state of their workspace."""
