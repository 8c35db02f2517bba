"""Which models the OpenAI routes serve: the base, and every adapter in the store."""

import asyncio
import logging
from http import HTTPStatus
from typing import Any

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import (
    AdapterCorruptError,
    AdapterNotFoundError,
    BaseMismatchError,
    ConfigError,
    PropulsionError,
)
from serving import vllm_compat
from serving.observability.metrics import BASE, UNKNOWN, ServeMetrics
from serving.observability.tracking import RequestRecord, current_request
from serving.registry.loader import AdapterLoader

logger = logging.getLogger(__name__)


class StoreModels(vllm_compat.OpenAIServingModels):
    """vLLM's model registry, extended to a store's references.

    `model` may name the base, or an adapter as `name`, `name@version` or `name@alias`. References
    are resolved on every request, so a moved alias or a new version counts from the next request
    on; responses name the version that answered.
    """

    def __init__(
        self,
        *,
        store: AdapterStore,
        loader: AdapterLoader,
        metrics: ServeMetrics,
        **vllm_options: Any,
    ):
        super().__init__(**vllm_options)
        self._store = store
        self._loader = loader
        self._metrics = metrics
        # vLLM's handlers look a request's adapter up here once `check` has passed it.
        self.lora_requests = loader.resident

    async def check(self, request: Any) -> Any | None:
        """Load what `request.model` names and rewrite it to `name@version`.

        Returns:
            None, or the ErrorResponse to answer with.
        """
        record = current_request.get() or RequestRecord()
        record.label = UNKNOWN
        if not request.model or self.is_base_model(request.model):
            record.label = BASE
            return None
        try:
            version = await asyncio.to_thread(self._store.resolve, request.model)
            record.label = self._metrics.adapter_label(version.name)
            await self._loader.acquire(version)
        except PropulsionError as error:
            return self._refusal(request.model, error)
        record.on_end.append(lambda: self._loader.release(version))
        request.model = version.reference
        return None

    async def show_available_models(self) -> Any:
        """The base, then one card per adapter version, its `parent` and `root` the base."""
        models = await self.registry.show_available_models()
        base = models.data[0]
        # vLLM tells every client where the base lies on this machine.
        base.root = base.id
        versions = await asyncio.to_thread(self._store.list)
        models.data.extend(_card(version, base) for version in versions)
        return models

    def _refusal(self, model: str, error: PropulsionError) -> Any:
        # Details name files and other adapters: they go to the log, not to clients.
        if isinstance(error, AdapterNotFoundError):
            return _error_response(
                HTTPStatus.NOT_FOUND,
                "NotFoundError",
                f"The model `{model}` does not exist: it is neither the base model "
                f"`{self.model_name()}` nor an adapter in the store.",
            )
        logger.warning("Refused a request for %r: %s", model, error)
        if isinstance(error, BaseMismatchError):
            # 400: this server can never run it, and clients retry 409 and 5xx.
            return _error_response(
                HTTPStatus.BAD_REQUEST,
                "BadRequestError",
                f"The adapter `{model}` was not made for the base model served here.",
            )
        if isinstance(error, ConfigError):
            return _error_response(
                HTTPStatus.BAD_REQUEST,
                "BadRequestError",
                f"The adapter `{model}` is of a kind that is not served here.",
            )
        if isinstance(error, AdapterCorruptError):
            # 500: the request is right, our copy of the adapter is not; the operator must act.
            return _error_response(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "InternalServerError",
                f"The adapter `{model}` is damaged in the store and cannot be served.",
            )
        return _error_response(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "ServiceUnavailableError",
            f"The adapter `{model}` could not be loaded now; try again.",
        )


def _card(version: AdapterVersion, base: Any) -> Any:
    return vllm_compat.ModelCard(
        id=version.reference,
        root=base.id,
        parent=base.id,
        max_model_len=base.max_model_len,
        permission=[vllm_compat.ModelPermission()],
    )


def _error_response(status: HTTPStatus, kind: str, message: str) -> Any:
    error = vllm_compat.ErrorInfo(message=message, type=kind, param="model", code=status.value)
    return vllm_compat.ErrorResponse(error=error)
