"""`onebox replay`: replays a recorded history with the current code, and explains it."""
