"""Data volumes: the contract of their activities, and when a snapshot is due."""
