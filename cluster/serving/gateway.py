"""The gateway: the single server's API, guards and request metrics, in front of all replicas."""

import asyncio
import logging
from collections import Counter
from http import HTTPStatus
from typing import Any

from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from cluster.serving.admin_calls import AdminCalls
from cluster.serving.config import ClusterServeConfig
from cluster.serving.exposition import gateway_registry
from cluster.serving.forwarding import Forwarder
from cluster.serving.messages import ForwardedRequest, WholeAnswer
from cluster.serving.metrics import cluster_metrics
from cluster.serving.recovery import Recovery
from serving.config import is_loopback
from serving.observability.logs import configure_logging
from serving.observability.metrics import ServeMetrics
from serving.observability.record import current_request_id, tokens_used
from serving.observability.tracing import start_exporting
from serving.observability.tracking import RequestTracking
from serving.security.refusals import refuse
from serving.security.stack import secure

logger = logging.getLogger(__name__)

REPLICA_DEPLOYMENT = "Replica"
_WATCH_SECONDS = 1.0
_BROADCAST_SECONDS = 5.0
_STATES = {
    "RUNNING": "running",
    "STARTING": "starting",
    "UPDATING": "starting",
    "RECOVERING": "starting",
    "STOPPING": "draining",
    "PENDING_MIGRATION": "draining",
}
_NOT_LOOPBACK = "Without API keys this server answers its own machine only: give it API keys."


@serve.ingress()
class Gateway:
    """The ingress deployment.

    Args:
        config: of the application.
        replicas: a handle of theirs.
    """

    def __init__(self, config: ClusterServeConfig, replicas: DeploymentHandle):
        configure_logging(config.log_format, config.log_level)
        if config.otlp_endpoint:
            start_exporting(config.otlp_endpoint)
        self._config = config
        self._replicas = replicas
        self._streams = replicas.options(stream=True)
        self._metrics = cluster_metrics()
        self._serve_metrics = ServeMetrics(config.metrics_top_adapters)
        self._recovery = Recovery(self._metrics.observe_recovery)
        self._app_name = serve.get_replica_context().app_name
        self._num_running = 0
        self._watching: asyncio.Task[None] | None = None

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Ray Serve for the ASGI app, once there is an event loop."""
        self._watching = asyncio.create_task(self._watch())
        forwarder = Forwarder(
            self._ask, self._config, self._serve_metrics, self._metrics, self._recovery.lost
        )
        admin = AdminCalls(forwarder, self._ask_all, self._forget, self._config.model_name)
        app: Any = self._routes(admin)
        if not self._config.asks_for_keys:
            app = LoopbackClients(app)
        secured = secure(app, self._config, tokens_used=tokens_used, request_id=current_request_id)
        return OneRequestId(RequestTracking(secured, self._serve_metrics))

    def _ask(self, request: ForwardedRequest) -> Any:
        return self._streams.answer.remote(request)

    async def _ask_all(self, request: ForwardedRequest) -> list[WholeAnswer]:
        return await self._broadcast("answer_whole", request)

    async def _forget(self, name: str) -> None:
        await self._broadcast("forget", name)

    async def _broadcast(self, method: str, *args: Any) -> list[Any]:
        """What every replica returns that does return in time."""
        if not self._num_running:
            return []
        try:
            answers = await self._replicas.broadcast(method, *args).results_async(
                timeout_s=_BROADCAST_SECONDS, return_exceptions=True
            )
        except (TimeoutError, DeploymentUnavailableError) as error:
            logger.warning("Not all replicas answered %s: %s", method, error)
            return []
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    def _routes(self, default: Any) -> Any:
        from prometheus_client.exposition import choose_encoder
        from starlette.responses import JSONResponse, Response
        from starlette.routing import Route, Router

        from serving.console.routes import console_routes

        registry = gateway_registry()

        async def metrics(request: Any) -> Response:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
            return Response(encode(registry), headers={"content-type": content_type})

        async def health(_: Any) -> Response:
            is_up = self._num_running > 0
            return Response(status_code=HTTPStatus.OK if is_up else HTTPStatus.SERVICE_UNAVAILABLE)

        async def targets(_: Any) -> JSONResponse:
            return JSONResponse(await self._metrics_targets())

        return Router(
            [
                Route("/health", health),
                Route("/ping", health, methods=["GET", "POST"]),
                Route("/metrics", metrics),
                Route("/metrics/targets", targets),
                *console_routes(),
            ],
            redirect_slashes=False,
            default=default,
        )

    async def _metrics_targets(self) -> list[dict[str, Any]]:
        """The replicas' addresses, as Prometheus' HTTP service discovery wants them."""
        return [
            {"targets": [target], "labels": {"role": "replica", "replica": name}}
            for name, target in await self._broadcast("metrics_target")
        ]

    async def _watch(self) -> None:
        while True:
            try:
                counts, is_planned = await asyncio.to_thread(_replica_states, self._app_name)
                self._num_running = counts["running"]
                self._metrics.set_replicas(counts)
                self._recovery.update(self._num_running, is_planned=is_planned)
            except Exception as error:
                logger.warning("The state of the replicas could not be read: %s", error)
            await asyncio.sleep(_WATCH_SECONDS)


class OneRequestId:
    """ASGI middleware that leaves `X-Request-Id` to Ray Serve's proxy, which adds it to answers."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_without(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_without)


class LoopbackClients:
    """ASGI middleware of a gateway without keys: callers on other machines are refused.

    What address Ray Serve's proxies listen on, only the cluster's operator decides.
    """

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        client = scope.get("client")
        if scope["type"] in ("http", "websocket") and not (client and is_loopback(client[0])):
            await refuse(scope, receive, send, HTTPStatus.FORBIDDEN, _NOT_LOOPBACK)
            return
        await self._app(scope, receive, send)


def _replica_states(app_name: str) -> tuple[Counter[str], bool]:
    """How many replicas run, start and drain; and whether Ray Serve is taking some away."""
    counts: Counter[str] = Counter()
    application = serve.status().applications.get(app_name)
    deployment = application.deployments.get(REPLICA_DEPLOYMENT) if application else None
    if deployment is None:
        return counts, False
    for state, count in deployment.replica_states.items():
        counts[_STATES.get(str(getattr(state, "value", state)), "starting")] += count
    return counts, deployment.status.value in ("UPDATING", "DOWNSCALING")
