"""The workspace record, its audit log and its tokens."""
