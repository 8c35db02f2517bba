"""How much memory a process takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

Kind = Literal["cuda", "rss"]

_STATUS = Path("/proc/self/status")


class PeakMemory:
    """The peak since it was made: of a GPU's allocations, or of the process's resident set.

    Make one after the imports and before the base is loaded, in a process that does nothing else.
    """

    def __init__(self) -> None:
        import torch

        self.kind: Kind = "cuda" if torch.cuda.is_available() else "rss"
        if self.kind == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self._before = 0 if self.kind == "cuda" else _resident("VmRSS")

    def bytes(self) -> int:
        """Bytes at the peak, above what there was at the start."""
        if self.kind == "cuda":
            import torch

            return torch.cuda.max_memory_allocated()
        return max(0, _resident("VmHWM") - self._before)


def _resident(key: str) -> int:
    # `getrusage` would tell the peak of the parent too, from before the program was replaced.
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
