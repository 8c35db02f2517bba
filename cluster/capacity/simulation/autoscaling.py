"""Ray Serve's own autoscaling policy, on the simulation's clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class AutoscalerConfig:
    """Ray Serve's `autoscaling_config`, by its names and with its defaults, and its two periods."""

    min_replicas: int
    max_replicas: int
    target_ongoing_requests: float
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    upscaling_factor: float = 1.0
    downscaling_factor: float = 1.0
    look_back_period_s: float = 30.0
    metrics_interval_s: float = 10.0
    control_interval_s: float = 1.0


class Autoscaler:
    """Says how many replicas there should be; the arithmetic is Ray Serve's.

    Ray looks ten times a second; here it looks every `control_interval_s`, which moves a decision
    by less than that.
    """

    def __init__(self, config: AutoscalerConfig):
        from ray.serve._private.common import DeploymentID
        from ray.serve.config import AutoscalingConfig

        self._config = config
        self._ray_config = AutoscalingConfig(
            min_replicas=config.min_replicas,
            max_replicas=config.max_replicas,
            target_ongoing_requests=config.target_ongoing_requests,
            upscale_delay_s=config.upscale_delay_s,
            downscale_delay_s=config.downscale_delay_s,
            upscaling_factor=config.upscaling_factor,
            downscaling_factor=config.downscaling_factor,
            look_back_period_s=config.look_back_period_s,
        )
        self._deployment = DeploymentID("replica", "simulation")
        self._state: dict[str, object] = {}
        self._samples: deque[tuple[float, int]] = deque()

    def observe(self, now: float, ongoing: int) -> None:
        """Take in how many requests the replicas have; called every `metrics_interval_s`."""
        self._samples.append((now, ongoing))
        while self._samples[0][0] < now - self._config.look_back_period_s:
            self._samples.popleft()

    def decide(self, now: float, running: int, target: int) -> int:
        """How many replicas there should be.

        Args:
            now: seconds.
            running: replicas that serve.
            target: the last answer.
        """
        from ray.serve import autoscaling_policy as ray_policy
        from ray.serve.config import AutoscalingContext

        if not self._samples:
            return target
        least, most = self._config.min_replicas, self._config.max_replicas
        context = AutoscalingContext(
            deployment_id=self._deployment,
            deployment_name=self._deployment.name,
            app_name=self._deployment.app_name,
            current_num_replicas=running,
            target_num_replicas=target,
            running_replicas=[],
            total_num_requests=sum(count for _, count in self._samples) / len(self._samples),
            total_queued_requests=0.0,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=least,
            capacity_adjusted_max_replicas=most,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now,
            config=self._ray_config,
        )
        desired, _ = ray_policy.replica_queue_length_autoscaling_policy(context)
        # Ray's wrapper around these two reads the wall clock.
        desired = ray_policy._apply_scaling_factors(desired, running, self._ray_config)
        decided, self._state = ray_policy._apply_delay_logic(
            desired, target, self._ray_config, self._state, _now=now
        )
        return max(least, min(most, decided))
