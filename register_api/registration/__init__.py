"""Register, heartbeat and card updates of boxes."""
