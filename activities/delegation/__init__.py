"""Delivery of delegations to agents over A2A."""
