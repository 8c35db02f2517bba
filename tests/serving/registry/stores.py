"""Stores with tiny adapters, and one that can be away."""

from pathlib import Path

import numpy as np

from adapters import AdapterStore, AdapterVersion
from propulsion.errors import StoreUnavailableError
from tests.adapters.folders import PREFIX, write_adapter


class LeavableStore(AdapterStore):
    """A store that is away while `is_away`, as one across a network may be; `num_reads` counts."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.is_away = False
        self.num_reads = 0

    def _reach(self) -> None:
        self.num_reads += 1
        if self.is_away:
            raise StoreUnavailableError("the store does not answer")

    def resolve(self, reference: str) -> AdapterVersion:
        self._reach()
        return super().resolve(reference)

    def splits(self, name: str) -> dict[str, dict[str, float]]:
        self._reach()
        return super().splits(name)

    def list(self) -> list[AdapterVersion]:
        self._reach()
        return super().list()


def publish(store: AdapterStore, name: str, num_versions: int = 1, **options) -> None:
    """Publish the same tiny adapter as so many versions of `name`."""
    folder = write_adapter(store.path.parent / "adapter")
    for _ in range(num_versions):
        store.publish(folder, name, **options)


def publish_lora(store: AdapterStore, name: str) -> None:
    """Publish a LoRA adapter."""
    module = f"{PREFIX}.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": np.ones((2, 8), np.float32),
        f"{module}.lora_B.weight": np.ones((8, 2), np.float32),
    }
    folder = write_adapter(
        store.path.parent / "lora", tensors, peft_type="LORA", r=2, target_modules=["q_proj"]
    )
    store.publish(folder, name)
