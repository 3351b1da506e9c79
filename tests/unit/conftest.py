"""Hypothesis as a busy host needs it: neither an example nor the making of examples has a time of its own.
Every test has its limit (tests/conftest.py).
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
