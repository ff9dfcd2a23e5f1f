"""One delegation, from queued to its end."""
