"""Hypothesis on a machine that others keep busy: how long an example took says nothing about the rules."""

from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
