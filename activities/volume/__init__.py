"""Data volumes and their snapshots."""
