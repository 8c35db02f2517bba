"""The dashboard of a cluster: gateway, replicas, queue of runs, Ray's nodes."""

from __future__ import annotations

from cluster.monitoring.panels.model import Dashboard, Panel, Query, Row, quantiles

_RATE = "[$__rate_interval]"
_GPU = "GPUs"

_NOW = Row(
    "Now",
    (
        Panel(
            "Replicas running",
            "Behind all gateways.",
            (Query('sum(propulsion_cluster_replicas{state="running"})'),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Failed requests",
            "Share of the requests through the worst gateway, retries included.",
            (Query("max(propulsion:cluster_failed_requests:ratio)"),),
            "percentunit",
            "stat",
            4,
        ),
        Panel(
            "Affinity",
            "Share of requests that reached a replica that held their adapter; worst gateway.",
            (Query("min(propulsion:cluster_affinity_hits:ratio)"),),
            "percentunit",
            "stat",
            4,
        ),
        Panel(
            "Runs waiting",
            "In the queue of training runs.",
            (Query("sum(propulsion_cluster_queued_runs)"),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Ray nodes",
            "That answer.",
            (Query("count(ray_node_cpu_count)"),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Firing alerts",
            "Of all components.",
            (Query('count(ALERTS{alertstate="firing"}) or vector(0)'),),
            "none",
            "stat",
            4,
        ),
    ),
)

_GATEWAY = Row(
    "Gateway",
    (
        Panel(
            "Requests by route",
            "home: to the adapter's own replica; spill: elsewhere, since that one is full; retry: "
            "again, since a replica failed.",
            (
                Query(
                    f"sum by (route) (rate(propulsion_cluster_routed_requests_total{_RATE}))",
                    "{{route}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Affinity",
            "Share of requests that reached a replica that held their adapter. An alert fires "
            "below 80 %.",
            (Query("propulsion:cluster_affinity_hits:ratio", "{{instance}}"),),
            "percentunit",
        ),
        Panel(
            "Retries and failures",
            "As shares of the routed requests. Clients see failures alone.",
            (
                Query("propulsion:cluster_retries:ratio", "{{instance}} retried"),
                Query("propulsion:cluster_failed_requests:ratio", "{{instance}} failed"),
            ),
            "percentunit",
        ),
        Panel(
            "Replicas by state",
            "starting for long: there is no place, or the engine fails.",
            (Query("sum by (state) (propulsion_cluster_replicas)", "{{state}}"),),
            "none",
        ),
        Panel(
            "First token",
            "What clients wait for, the time at the gateway and retries included; counted by the "
            "replica that answers.",
            quantiles("propulsion_serve_ttft_seconds", "instance", 'role="replica"'),
            "s",
        ),
        Panel(
            "Recovery of a replica",
            "From the loss of an engine to its first answer, over the last hour.",
            (Query("propulsion:cluster_replica_recovery_seconds:p99", "{{instance}} p99"),),
            "s",
        ),
    ),
)

_REPLICAS = Row(
    "Replicas",
    (
        Panel(
            "Queue of each replica",
            "As the gateway counts it, to route and to scale.",
            (
                Query(
                    "sum by (replica) (propulsion_cluster_replica_queue_length)",
                    "{{replica}}",
                ),
            ),
            "none",
        ),
        Panel(
            "Tokens of each replica",
            "Generated a second.",
            (
                Query(
                    "sum by (replica, instance) "
                    f'(rate(propulsion_serve_generated_tokens_total{{role="replica"}}{_RATE}))',
                    "{{replica}}",
                ),
            ),
        ),
        Panel(
            "Engines that live",
            "1 or 0 for each replica.",
            (Query('propulsion_serve_engine_up{role="replica"}', "{{replica}}"),),
            "none",
        ),
    ),
)

_QUEUE = Row(
    "Training queue",
    (
        Panel(
            "Runs by team",
            "Waiting and running.",
            (
                Query("sum by (team) (propulsion_cluster_queued_runs)", "{{team}} waiting"),
                Query("sum by (team) (propulsion_cluster_running_runs)", "{{team}} running"),
            ),
            "none",
        ),
        Panel(
            "Wait in the queue, p99",
            "From submission to the start, over the last hour.",
            (Query("propulsion:cluster_queue_wait_seconds:p99", "{{instance}}"),),
            "s",
        ),
        Panel(
            "Runs that ended",
            "In the last hour, by outcome.",
            (
                Query(
                    "sum by (team, outcome) (increase(propulsion_cluster_finished_runs_total[1h]))",
                    "{{team}} {{outcome}}",
                ),
            ),
            "none",
        ),
    ),
)

_NODES = Row(
    "Ray's nodes",
    (
        Panel(
            "CPU in use",
            "Per cent of each node.",
            (Query("ray_node_cpu_utilization", "{{instance}}"),),
            "percent",
        ),
        Panel(
            "Memory in use",
            "Ray ends workers at 95 %.",
            (Query("ray_node_mem_used / ray_node_mem_total", "{{instance}}"),),
            "percentunit",
        ),
        Panel(
            "Object store in use",
            "In memory, of each node.",
            (
                Query(
                    "sum by (instance) (ray_object_store_used_memory)",
                    "{{instance}}",
                ),
            ),
            "bytes",
        ),
        Panel(
            "Network",
            "Bytes a second of each node.",
            (
                Query("ray_node_network_receive_speed", "{{instance}} received"),
                Query("ray_node_network_send_speed", "{{instance}} sent"),
            ),
            "Bps",
        ),
        Panel(
            "GPU in use",
            "Per cent of each GPU.",
            (Query("ray_node_gpus_utilization", "{{instance}} GPU {{GpuIndex}}"),),
            "percent",
            requires=_GPU,
        ),
        Panel(
            "GPU memory in use",
            "Of each GPU.",
            (
                Query(
                    "ray_node_gram_used / (ray_node_gram_used + ray_node_gram_available)",
                    "{{instance}} GPU {{GpuIndex}}",
                ),
            ),
            "percentunit",
            requires=_GPU,
        ),
    ),
)

CLUSTER = Dashboard(
    uid="propulsion-cluster",
    title="Propulsion: cluster",
    component="cluster",
    variables=(),
    rows=(_NOW, _GATEWAY, _REPLICAS, _QUEUE, _NODES),
)
