"""`onebox replay`: replays a recorded history and explains it."""
