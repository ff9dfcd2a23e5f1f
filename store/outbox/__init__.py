"""Transactional outboxes: events that a relay delivers to workflows."""
