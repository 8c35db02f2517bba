"""The Ray Serve application, for `propulsion cluster serve` and for a Serve or RayService config.

applications:
  - name: propulsion
    import_path: cluster.serving.app:build
    args: {base: /models/llama, store: s3://adapters, keys_file: /secrets/keys.yaml, host: 0.0.0.0}
"""

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from cluster.serving.config import ClusterServeConfig, cluster_serve_config
from cluster.serving.gateway import REPLICA_DEPLOYMENT, Gateway
from cluster.serving.replica import Replica

_ROUTERS = {
    "affinity": "cluster.serving.request_router:AffinityRequestRouter",
    "round_robin": "ray.serve.experimental.round_robin_router:RoundRobinRouter",
}
_GATEWAY_REQUESTS = 10_000
_START_ATTEMPTS = 3


def build(args: dict[str, Any]) -> serve.Application:
    """The application of a Serve config's `args`, which are the fields of ClusterServeConfig.

    Raises:
        ConfigError: an argument is unknown or malformed, a folder is missing, or the address is
            open to other machines while there are no keys.
    """
    return application(cluster_serve_config(**args))


def application(config: ClusterServeConfig) -> serve.Application:
    """The gateway, bound to its replicas."""
    replicas = serve.deployment(
        Replica,
        name=REPLICA_DEPLOYMENT,
        ray_actor_options={"num_cpus": config.replica_cpus, "num_gpus": _gpus(config)},
        max_ongoing_requests=config.max_ongoing_requests,
        max_queued_requests=config.max_queued_requests,
        graceful_shutdown_timeout_s=config.drain_seconds,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=config.health_check_seconds,
        max_constructor_retry_count=_START_ATTEMPTS,
        # A new version starts beside the old one, which serves until then.
        max_surge_percent=25,
        request_router_config=_router(config),
        **_scaling(config),
    )
    gateway = serve.deployment(
        Gateway,
        name="Gateway",
        ray_actor_options={"num_cpus": config.gateway_cpus},
        max_ongoing_requests=_GATEWAY_REQUESTS,
        max_surge_percent=100,
        graceful_shutdown_timeout_s=config.drain_seconds,
    )
    return gateway.bind(config, replicas.bind(config))


def _scaling(config: ClusterServeConfig) -> dict[str, Any]:
    if config.most_replicas == config.min_replicas:
        return {"num_replicas": config.min_replicas}
    scaling = AutoscalingConfig(
        min_replicas=config.min_replicas,
        max_replicas=config.most_replicas,
        target_ongoing_requests=config.target_queue,
        upscale_delay_s=config.upscale_delay_seconds,
        downscale_delay_s=config.downscale_delay_seconds,
        look_back_period_s=max(2.0, config.upscale_delay_seconds),
    )
    return {"autoscaling_config": scaling}


def _router(config: ClusterServeConfig) -> RequestRouterConfig:
    options = config.affinity.model_dump() if config.routing == "affinity" else {}
    return RequestRouterConfig(
        request_router_class=_ROUTERS[config.routing],
        request_router_kwargs=options,
        request_routing_stats_period_s=config.routing_stats_seconds,
    )


def _gpus(config: ClusterServeConfig) -> float:
    if config.replica_gpus is not None:
        return config.replica_gpus
    import torch

    return config.tensor_parallel if torch.version.cuda else 0
