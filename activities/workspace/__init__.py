"""The steps of a workspace's lifecycle: PostgreSQL, EC2, Route 53, and the box itself."""
