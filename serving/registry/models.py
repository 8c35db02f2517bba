"""Which models the OpenAI routes serve: the base, and every adapter in the store."""

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from types import MappingProxyType
from typing import Any

from adapters import AdapterVersion
from propulsion.errors import AdapterNotFoundError, ConfigError, PropulsionError
from serving import vllm_compat
from serving.observability.metrics import BASE, BLEND, UNKNOWN, ServeMetrics
from serving.observability.record import RequestRecord, current_request
from serving.observability.tracing import span
from serving.registry.listing import StoreListing
from serving.registry.loader import AdapterLoader
from serving.registry.references import ModelReference, parse_model
from serving.registry.refusals import Refusal, headless, malformed, not_found, refusal
from serving.registry.resolution import Resolver, require_permission
from serving.registry.splits import request_key
from serving.security.principal import Principal, current_principal

logger = logging.getLogger(__name__)

# What `check` let the present request use, by the name it gave the request.
_NONE: Mapping[str, Any] = MappingProxyType({})
_admitted: ContextVar[Mapping[str, Any]] = ContextVar("propulsion_admitted", default=_NONE)


class AdmittedAdapters(Mapping[str, Any]):
    """The LoRARequests that the present request may use: those it was checked for, no others.

    vLLM's handlers look adapters up here, some without a check before. Were all loaded adapters
    here, any client could use another tenant's.
    """

    def __getitem__(self, name: str) -> Any:
        return _admitted.get()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_admitted.get())

    def __len__(self) -> int:
        return len(_admitted.get())


class ModelRefusedError(Exception):
    """A request's model was refused where vLLM expects an exception; see `StoreModels.require`."""

    def __init__(self, response: Any):
        super().__init__(response.error.message)
        self.response = response


async def answer_refused(_: Any, error: ModelRefusedError) -> Any:
    """FastAPI's exception handler for ModelRefusedError."""
    from fastapi.responses import JSONResponse

    return JSONResponse(error.response.model_dump(), status_code=error.response.error.code)


class StoreModels(vllm_compat.OpenAIServingModels):
    """vLLM's model registry, extended to a store's references.

    `model` may name the base, or an adapter as `name`, `name@version` or `name@alias`, or a blend
    of such; responses name the versions that answered. For each principal, only the adapters that
    it may use exist.

    Args:
        resolver: from references to versions.
        listing: the store's versions.
        loader: has adapters loaded.
        metrics: gives labels, counts blends and draws of splits.
        base_answers: false where the engine classifies and the base has no head.
        vllm_options: of vLLM's registry.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        listing: StoreListing,
        loader: AdapterLoader,
        metrics: ServeMetrics,
        base_answers: bool = True,
        **vllm_options: Any,
    ):
        super().__init__(**vllm_options)
        self._resolver = resolver
        self._listing = listing
        self._loader = loader
        self._metrics = metrics
        self._base_answers = base_answers
        self._cards: dict[str, Any] = {}
        self._carded: Sequence[AdapterVersion] = ()
        self.lora_requests = AdmittedAdapters()

    def is_base_model(self, model_name: str) -> bool:
        """Whether it is the base, and exists for the present principal.

        Some of vLLM's routes ask this alone.
        """
        return super().is_base_model(model_name) and current_principal.get().may_use_base

    async def check(self, request: Any) -> Any | None:
        """Load what `request.model` names and rewrite it to the versions' canonical text.

        Returns:
            None, or the ErrorResponse to answer with.
        """
        record = current_request.get() or RequestRecord()
        record.label = UNKNOWN
        _admitted.set(_NONE)
        principal = current_principal.get()
        model = request.model or ""
        base = self.model_name() if principal.may_use_base else None
        # The base's name is its own, whatever the store holds.
        if not model or super().is_base_model(model):
            if base is None:
                return _error_response(not_found(model, base), record)
            record.label = BASE
            return None
        try:
            wanted = parse_model(model)
        except AdapterNotFoundError:
            return _error_response(not_found(model, base), record)
        except ConfigError as error:
            return _error_response(malformed(error), record)
        try:
            await self._admit(request, wanted, principal, record)
        except PropulsionError as error:
            return _error_response(refusal(model, base, error), record)
        return None

    async def require(self, request: Any) -> None:
        """As `check`, for routes that pool and ignore what it returns: raises ModelRefusedError."""
        response = await self.check(request)
        if response is None and not (self._base_answers or _admitted.get()):
            record = current_request.get() or RequestRecord()
            response = _error_response(headless(self.model_name()), record)
        if response is not None:
            raise ModelRefusedError(response)

    async def show_available_models(self) -> Any:
        """The base, then one card per adapter version, its `parent` and `root` the base.

        A principal sees what it may use: where that excludes the base, no card names it.
        """
        principal = current_principal.get()
        models = await self.registry.show_available_models()
        base = models.data[0]
        # vLLM tells every client where the base lies on this machine.
        base.root = base.id
        cards = await self._adapter_cards(base, principal)
        if not principal.may_use_base:
            cards = [card.model_copy(update={"parent": None, "root": card.id}) for card in cards]
        models.data = [base, *cards] if principal.may_use_base else cards
        return models

    async def _admit(
        self, request: Any, wanted: ModelReference, principal: Principal, record: RequestRecord
    ) -> None:
        require_permission(wanted, principal)
        key = request_key(getattr(request, "user", None), getattr(request, "seed", None))
        with span("propulsion.resolve"):
            resolution = await self._resolver.resolve(wanted, key)
        servable = resolution.servable
        version = servable.parts[0][0]
        record.label = BLEND if servable.is_blend else self._metrics.adapter_label(version.name)
        if servable.is_blend:
            self._metrics.count_blend()
        elif resolution.was_drawn:
            self._metrics.count_split(record.label, version.version)
        record.was_resident = self._loader.is_resident(servable.reference)
        resident = await self._loader.acquire(servable)
        if record.ended:
            # A task that outlives its request; nobody would call what is put on the end.
            self._loader.release(resident)
        else:
            record.on_end.append(partial(self._loader.release, resident))
        record.reference = request.model = servable.reference
        _admitted.set({servable.reference: resident.request})

    async def _adapter_cards(self, base: Any, principal: Principal) -> list[Any]:
        try:
            versions = await self._listing.versions()
        except PropulsionError as error:
            logger.warning("Listing the loaded adapters only: %s", error)
            loaded = [resident.servable for resident in self._loader.residents.values()]
            versions = [servable.parts[0][0] for servable in loaded if not servable.is_blend]
        if versions is not self._carded:
            # Thousands of cards take long to make, and few are new.
            self._cards = await asyncio.to_thread(_cards, versions, base, self._cards)
            self._carded = versions
        cards = self._cards
        permitted = {name: principal.may_use(name) for name in {v.name for v in versions}}
        return [cards[v.reference] for v in versions if permitted[v.name]]


def _cards(
    versions: Sequence[AdapterVersion], base: Any, known: Mapping[str, Any]
) -> dict[str, Any]:
    cards = {}
    for version in versions:
        reference = version.reference
        cards[reference] = known.get(reference) or vllm_compat.ModelCard(
            id=reference, root=base.id, parent=base.id, max_model_len=base.max_model_len
        )
    return cards


def _error_response(refused: Refusal, record: RequestRecord) -> Any:
    record.retry_after = refused.retry_after
    error = vllm_compat.ErrorInfo(
        message=refused.message, type=refused.type, param="model", code=refused.status.value
    )
    return vllm_compat.ErrorResponse(error=error)
