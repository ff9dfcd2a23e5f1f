"""What workflows of every domain use: names, activity options, payload conversion and encryption."""
