"""What operators see of the engine's adapters."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from serving.registry.loader import AdapterLoader
from serving.registry.residents import Resident

Residency = Literal["loading", "host", "slot", "failed"]


@dataclass(frozen=True)
class AdapterState:
    """One adapter or blend that the engine holds, is being given, or could not be given.

    Attributes:
        reference: canonical.
        state: "host": in the engine's host memory; "slot": also in a bank slot, ready to run.
        slot: the bank slot.
        pinned: whether it stays loaded.
        active_requests: requests that run with it or wait for it.
        loaded_at, last_used: UTC.
        load_seconds: how long the first request for it waited.
        error: why the latest load failed.
    """

    reference: str
    state: Residency
    slot: int | None = None
    pinned: bool = False
    active_requests: int = 0
    loaded_at: datetime | None = None
    last_used: datetime | None = None
    load_seconds: float | None = None
    error: str | None = None


async def adapter_states(loader: AdapterLoader) -> dict[str, AdapterState]:
    """The states of all adapters that are not merely in the store, by reference."""
    slots = (await loader.engine_state()).slots
    states = {
        reference: AdapterState(
            reference, "failed", pinned=reference in loader.pins, error=str(error)
        )
        for reference, error in loader.failures.items()
    }
    for reference, resident in loader.loading.items():
        states[reference] = _state(resident, "loading", None, reference in loader.pins)
    for reference, resident in loader.residents.items():
        slot = slots.get(resident.request.lora_int_id)
        residency: Residency = "host" if slot is None else "slot"
        states[reference] = _state(resident, residency, slot, reference in loader.pins)
    return states


def _state(resident: Resident, state: Residency, slot: int | None, pinned: bool) -> AdapterState:
    loaded = bool(resident.loaded_at)
    return AdapterState(
        reference=resident.servable.reference,
        state=state,
        slot=slot,
        pinned=pinned,
        active_requests=resident.users,
        loaded_at=_utc(resident.loaded_at) if loaded else None,
        last_used=_utc(resident.last_used),
        load_seconds=resident.load_seconds if loaded else None,
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
