"""How property tests run here: however slow or busy the machine, time decides nothing."""

from hypothesis import HealthCheck, settings

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
