"""Temporal activities: side effects on PostgreSQL, EC2, Route 53 and boxes. Each is safe to run twice."""
