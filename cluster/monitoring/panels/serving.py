"""The dashboard of servers, gateways and replicas: traffic, latency, adapters, engine."""

from __future__ import annotations

from cluster.monitoring.panels.model import Dashboard, Panel, Query, Row, Variable, quantiles

_ON = 'role="$role", instance=~"$instance"'
_RATE = "[$__rate_interval]"
_RECORDED = f"{{{_ON}}}"


def _total(metric: str, by: str = "", matchers: str = "") -> str:
    """Events a second of a counter, summed."""
    chosen = f"{_ON}, {matchers}" if matchers else _ON
    grouped = f"sum by ({by})" if by else "sum"
    return f"{grouped} (rate({metric}{{{chosen}}}{_RATE}))"


_NOW = Row(
    "Now",
    (
        Panel(
            "Engines up",
            "Servers whose engine lives.",
            (Query(f"sum(propulsion_serve_engine_up{{{_ON}}})"),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Requests",
            "Requests that ended, a second.",
            (Query(_total("propulsion_serve_requests_total")),),
            "reqps",
            "stat",
            4,
        ),
        Panel(
            "Server errors",
            "Share of requests that got a status of 500 or more, of the worst instance.",
            (Query(f"max(propulsion:serve_server_errors:ratio{_RECORDED}) or vector(0)"),),
            "percentunit",
            "stat",
            4,
        ),
        Panel(
            "First token, p99",
            "Seconds until the first token of all but one request in a hundred; worst instance.",
            (Query(f"max(propulsion:serve_ttft_seconds:p99{_RECORDED})"),),
            "s",
            "stat",
            4,
        ),
        Panel(
            "Waiting requests",
            "In the engines' queues.",
            (Query(f"sum(propulsion:serve_waiting_requests:sum{_RECORDED})"),),
            "none",
            "stat",
            4,
        ),
        Panel(
            "Firing alerts",
            "Of the component serving.",
            (Query('count(ALERTS{alertstate="firing", component="serving"}) or vector(0)'),),
            "none",
            "stat",
            4,
        ),
    ),
)

_TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests by outcome",
            "client_error is the client's doing, server_error ours; aborted left first.",
            (Query(_total("propulsion_serve_requests_total", "outcome"), "{{outcome}}"),),
            "reqps",
        ),
        Panel(
            "Refusals and failures by HTTP status",
            "429 are clients held back by their limits; 503 an engine that is away or starting.",
            (Query(_total("propulsion_serve_errors_total", "code"), "{{code}}"),),
            "reqps",
        ),
        Panel(
            "Tokens",
            "Tokens read and generated, a second.",
            (
                Query(_total("propulsion_serve_generated_tokens_total"), "generated"),
                Query(_total("propulsion_serve_prompt_tokens_total"), "prompt"),
            ),
        ),
        Panel(
            "Adapters with the most tokens",
            "Generated tokens a second of the ten busiest adapters.",
            (
                Query(
                    f"topk(10, {_total('propulsion_serve_generated_tokens_total', 'adapter')})",
                    "{{adapter}}",
                ),
            ),
        ),
        Panel(
            "Weighted splits",
            "Requests a second that splits sent to each version.",
            (
                Query(
                    _total("propulsion_serve_split_draws_total", "adapter, version"),
                    "{{adapter}}@{{version}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Blends",
            "Requests a second for a blend of adapters.",
            (Query(_total("propulsion_serve_blends_total"), "blends"),),
            "reqps",
        ),
    ),
)

_LATENCY = Row(
    "Latency",
    (
        Panel(
            "First token",
            "From a request's arrival to its first token, loading its adapter included. An alert "
            "fires above 2 s.",
            quantiles("propulsion_serve_ttft_seconds", "instance", _ON),
            "s",
        ),
        Panel(
            "First token, all requests",
            "How many requests a second waited how long.",
            (Query(_total("propulsion_serve_ttft_seconds_bucket", "le"), "{{le}}"),),
            "s",
            "heatmap",
        ),
        Panel(
            "First token by adapter, p99",
            "The ten slowest adapters: cold ones wait for their load.",
            (
                Query(
                    "topk(10, histogram_quantile(0.99, "
                    f"{_total('propulsion_serve_ttft_seconds_bucket', 'adapter, le')}))",
                    "{{adapter}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Between tokens",
            "Seconds from one token of an answer to the next.",
            quantiles("propulsion_serve_inter_token_seconds", "instance", _ON),
            "s",
        ),
        Panel(
            "Wait in the engine's queue",
            "Until a sequence was first scheduled.",
            quantiles("propulsion_serve_queue_seconds", "instance", _ON),
            "s",
        ),
        Panel(
            "Whole request",
            "From arrival to the end of the answer, of requests that ended well.",
            quantiles("propulsion_serve_request_seconds", "instance", _ON),
            "s",
        ),
    ),
)

_ADAPTERS = Row(
    "Adapters",
    (
        Panel(
            "Found where they are needed",
            "Requests whose adapter was in host memory, and adapters that joined the batch from "
            "their slot, as shares.",
            (
                Query(f"propulsion:serve_host_cache_hits:ratio{_RECORDED}", "{{instance}} host"),
                Query(f"propulsion:serve_slot_hits:ratio{_RECORDED}", "{{instance}} slot"),
            ),
            "percentunit",
        ),
        Panel(
            "Pushed out",
            "Adapters a second that left a slot or host memory to make room. Above zero all the "
            "time: raise --max-adapters (slot) or --max-cpu-adapters (host).",
            (Query(_total("propulsion_serve_evictions_total", "level"), "{{level}}"),),
        ),
        Panel(
            "Slots",
            "Of the bank on the device.",
            (Query(f"sum by (state) (propulsion_serve_slots{{{_ON}}})", "{{state}}"),),
            "none",
        ),
        Panel(
            "In host memory",
            "Adapters loaded, and how many fit.",
            (
                Query(f"sum(propulsion_serve_adapters_loaded{{{_ON}}})", "loaded"),
                Query(f"sum(propulsion_serve_adapters_capacity{{{_ON}}})", "capacity"),
            ),
            "none",
        ),
        Panel(
            "Time of a load",
            "To fetch, verify and load an adapter.",
            quantiles("propulsion_serve_adapter_load_seconds", "instance", _ON),
            "s",
        ),
        Panel(
            "Loads and failures",
            "Loads a second, and those that failed, by reason.",
            (
                Query(_total("propulsion_serve_adapter_loads_total"), "loaded"),
                Query(_total("propulsion_serve_adapter_unloads_total"), "unloaded on request"),
                Query(_total("propulsion_serve_load_failures_total", "reason"), "{{reason}}"),
            ),
        ),
    ),
)

_ENGINE = Row(
    "Engine",
    (
        Panel(
            "Requests in the engine",
            "A queue that never empties: more requests arrive than are answered.",
            (
                Query(f"sum(vllm:num_requests_running{{{_ON}}})", "running"),
                Query(f"sum(vllm:num_requests_waiting{{{_ON}}})", "waiting"),
            ),
            "none",
        ),
        Panel(
            "KV cache in use",
            "When it is full, requests wait or are preempted.",
            (Query(f"vllm:kv_cache_usage_perc{{{_ON}}}", "{{instance}}"),),
            "percentunit",
        ),
        Panel(
            "Prompt tokens found in the prefix cache",
            "As a share of all that were looked up.",
            (
                Query(
                    f"{_total('vllm:prefix_cache_hits_total')} "
                    f"/ {_total('vllm:prefix_cache_queries_total')}",
                    "found",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Preemptions",
            "Requests a second that lost their cache to others and are computed again.",
            (Query(_total("vllm:num_preemptions_total"), "preempted"),),
        ),
        Panel(
            "Engine restarts",
            "Since the server started.",
            (Query(f"propulsion_serve_engine_restarts_total{{{_ON}}}", "{{instance}}"),),
            "none",
        ),
        Panel(
            "Server memory",
            "Resident memory of the server's own process; its engine has one of its own.",
            (Query(f"process_resident_memory_bytes{{{_ON}}}", "{{instance}}"),),
            "bytes",
        ),
    ),
)

SERVING = Dashboard(
    uid="propulsion-serving",
    title="Propulsion: serving",
    component="serving",
    variables=(
        Variable("role", 'label_values(up{role=~"server|gateway|replica"}, role)', several=False),
        Variable("instance", 'label_values(up{role="$role"}, instance)'),
    ),
    rows=(_NOW, _TRAFFIC, _LATENCY, _ADAPTERS, _ENGINE),
)
