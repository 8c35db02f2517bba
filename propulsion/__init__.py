"""Propulsion (arXiv 2409.10927): fine-tune a frozen model by scaling its layers' outputs.

Importing this package is cheap: torch and peft load on the first use of a name that needs them.
The method is registered with `peft` as soon as both packages are imported, in either order.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from propulsion.errors import PropulsionError
from propulsion.registration import register_with_peft
from propulsion.version import __version__

if TYPE_CHECKING:
    from propulsion.config import PropulsionConfig
    from propulsion.effective import effective_scales
    from propulsion.hotswap import hotswap_adapter
    from propulsion.layer import PropulsionLayer
    from propulsion.model import PropulsionModel

__all__ = [
    "PropulsionConfig",
    "PropulsionError",
    "PropulsionLayer",
    "PropulsionModel",
    "__version__",
    "effective_scales",
    "hotswap_adapter",
]

_LAZY = {
    "PropulsionConfig": "propulsion.config",
    "PropulsionLayer": "propulsion.layer",
    "PropulsionModel": "propulsion.model",
    "effective_scales": "propulsion.effective",
    "hotswap_adapter": "propulsion.hotswap",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


register_with_peft()
