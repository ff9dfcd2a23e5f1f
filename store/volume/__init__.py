"""Data volumes and snapshots."""
