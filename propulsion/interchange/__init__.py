"""Adapters of other formats to Propulsion adapters, and back.

Importing this package is cheap: torch and peft load on the first use of a function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from propulsion.interchange.authors import import_authors
    from propulsion.interchange.ia3 import export_ia3, import_ia3

__all__ = ["export_ia3", "import_authors", "import_ia3"]

_LAZY = {
    "export_ia3": "propulsion.interchange.ia3",
    "import_authors": "propulsion.interchange.authors",
    "import_ia3": "propulsion.interchange.ia3",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
