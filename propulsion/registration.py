"""Puts the method into PEFT's mappings, without importing PEFT before its user does."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

PEFT_TYPE = "PROPULSION"

_IMPORT_PEFT = {
    "propulsion.batch_context": "mixed_forward",
    "propulsion.config": "PropulsionConfig",
    "propulsion.layer": "PropulsionLayer",
    "propulsion.mixed_heads": "mixed_head",
    "propulsion.model": "PropulsionModel",
}
"""Modules that import PEFT, and what stands in them once they are imported."""


def register_with_peft() -> None:
    """Register now if `peft` is imported already, otherwise right after its import.

    Idempotent. `get_peft_model` and `PeftModel.from_pretrained` then know the type "PROPULSION".
    """
    if hasattr(sys.modules.get("peft"), "PeftModel"):
        _register()
    elif not any(isinstance(finder, _AfterPeftImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterPeftImport())


def _register() -> None:
    for module, name in _IMPORT_PEFT.items():
        loaded = sys.modules.get(module)
        if loaded is not None and not hasattr(loaded, name):
            # It is being imported, and imports PEFT itself: it registers when it is done.
            return

    import peft.mapping

    from propulsion.config import PropulsionConfig
    from propulsion.model import PropulsionModel

    # Its keys are typed as a closed enum, which no other package can extend.
    mapping: Any = peft.mapping
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE] = PropulsionConfig
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[PEFT_TYPE] = PropulsionModel
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[PEFT_TYPE] = PropulsionModel.prefix


class _AfterPeftImport(importlib.abc.MetaPathFinder):
    """Finds `peft` as the other finders would, and registers once its import has finished."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "peft":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec


class _RegisteringLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, finder: _AfterPeftImport) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        # Only now: others look the spec up without loading it, as `find_spec("peft")` does.
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        _register()
