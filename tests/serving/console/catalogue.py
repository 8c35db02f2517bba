"""A store of adapters with names and states such as a real server has."""

from pathlib import Path
from typing import Any

from adapters import AdapterStore
from tests.adapters.folders import write_adapter

FINGERPRINT = "sha256:" + "5e" * 32

VERSIONS: dict[str, list[dict[str, Any]]] = {
    "boolq": [{"accuracy": 0.7812}],
    "cola": [{"matthews_correlation": 0.5821}],
    "invoice-fields": [{"exact_match": 0.913}, {"exact_match": 0.934}],
    "legal-clauses": [{"f1": 0.861}],
    "medical-codes": [{"f1": 0.742}],
    "mrpc": [{"accuracy": 0.887, "f1": 0.914}],
    "qnli": [{"accuracy": 0.9265}],
    "sql-from-text": [{"execution_accuracy": 0.688}],
    "squad-answers": [{"exact_match": 0.845, "f1": 0.912}],
    "sst2": [{"accuracy": 0.9243}, {"accuracy": 0.9381}, {"accuracy": 0.9415}],
    "summarise-news": [{"rouge": {"1": 41.2, "2": 18.9, "L": 28.4}}],
    "support-triage": [{"accuracy": 0.902}, {"accuracy": 0.917}],
    "tone-friendly": [{}],
    "translate-de-en": [{"bleu": 33.7}],
}

STATES: dict[str, dict[str, Any]] = {
    "boolq@v1": {"state": "slot", "slot": 3, "active_requests": 12, "last_used": 1},
    "cola@v1": {"state": "host", "last_used": 340},
    "invoice-fields@v2": {"state": "slot", "slot": 41, "last_used": 25, "pinned": True},
    "legal-clauses@v1": {
        "state": "failed",
        "error": "adapter_model.safetensors: sha256 differs from the manifest's; publish it again.",
    },
    "medical-codes@v1": {"state": "loading"},
    "mrpc@v1": {"state": "host", "last_used": 4000},
    "qnli@v1": {"state": "slot", "slot": 7, "active_requests": 1, "last_used": 8},
    "squad-answers@v1": {"state": "slot", "slot": 12, "active_requests": 4, "last_used": 2},
    "sst2@v2": {"state": "slot", "slot": 1, "active_requests": 31, "last_used": 0, "pinned": True},
    "sst2@v3": {"state": "slot", "slot": 2, "active_requests": 3, "last_used": 1},
    "summarise-news@v1": {"state": "slot", "slot": 19, "active_requests": 7, "last_used": 3},
    "support-triage@v2": {"state": "host", "last_used": 90},
    "translate-de-en@v1": {"state": "stored", "base_matches": False},
}

PEFT_TYPES = {"sql-from-text": "LORA", "tone-friendly": "IA3"}


def fill_store(folder: Path) -> AdapterStore:
    """A store of VERSIONS; sst2@v3 was trained on from sst2@v2, and @prod of sst2 means v2."""
    store = AdapterStore(folder / "store")
    source = write_adapter(folder / "adapter")
    for name, versions in VERSIONS.items():
        for number, metrics in enumerate(versions, 1):
            store.publish(
                source,
                name,
                base_fingerprint=FINGERPRINT,
                metrics=metrics,
                training_config={"learning_rate": 1e-3, "degree": 15, "epochs": 3},
                parent=f"{name}@v{number - 1}" if number > 1 else None,
            )
    store.set_alias("sst2", "prod", "v2")
    return store


def many(num_adapters: int) -> list[dict[str, Any]]:
    """AdapterInfo of adapters that are in no store: writing so many would take minutes."""
    return [
        {
            "reference": f"task-{number:05}@v1",
            "name": f"task-{number:05}",
            "version": "v1",
            "aliases": ["latest"],
            "splits": {},
            "state": "slot" if number < 2000 else "stored",
            "slot": number if number < 2000 else None,
            "pinned": False,
            "active_requests": number % 7,
            "last_used": None,
            "peft_type": "PROPULSION",
            "num_parameters": 10_752 + number,
            "bytes": 44_000 + number * 4,
            "created": "2025-01-02T03:04:05Z",
            "base_matches": True,
            "error": None,
        }
        for number in range(num_adapters)
    ]
