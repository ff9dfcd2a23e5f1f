"""Metrics, spans, the request context of log lines, and health probes."""
