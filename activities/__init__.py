"""Side effects on PostgreSQL, EC2, Route 53 and boxes, each safe to run twice."""
