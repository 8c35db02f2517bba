"""What pages take from the code when the site is built, so that it never goes stale.

A page asks for a part with a line `<!-- generated: NAME -->`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from command_reference import command_reference
from mkdocs.exceptions import PluginError
from option_tables import option_tables
from preset_table import preset_table

from serving.config import ServeConfig
from trainer.config import RunConfig

PARTS = {
    "commands": lambda: command_reference(),
    "presets": lambda: preset_table(),
    "run-options": lambda: option_tables(RunConfig),
    "serve-options": lambda: option_tables(ServeConfig),
}
_MARKER = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the parts that a page asks for in their places."""
    return _MARKER.sub(lambda marker: _part(marker[1], page), markdown)


def on_config(config: Any) -> Any:
    """List every page of results under the navigation's heading for them."""
    folder = Path(config.docs_dir)
    pages = sorted(path.relative_to(folder).as_posix() for path in folder.glob("results/*.md"))
    for entry in config.nav:
        if "Results" in entry:
            entry["Results"] = pages
    return config


def _part(name: str, page: Any) -> str:
    if name not in PARTS:
        raise PluginError(f"{page.file.src_uri}: no generated part {name!r}; see {__file__}")
    return PARTS[name]()
