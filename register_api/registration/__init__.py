"""Endpoints of boxes: register, heartbeat, agent card."""
