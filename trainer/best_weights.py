"""The best weights of an adapter that is trained on, for when it stops early."""

from __future__ import annotations

import os
from pathlib import Path

from trainer import optimizer_state
from trainer.checkpoint import Trained


def keep_best(trained: Trained, output_dir: Path, index: int, rank: int) -> None:
    """Write an adapter's weights of now, in place of its best before; collective."""
    from safetensors.torch import save_file

    name = trained.adapted.names[index]
    weights = optimizer_state.full_weights(trained.engine, trained.adapted.parameters[name])
    if rank == 0:
        path = _path(output_dir, name)
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(weights, temporary)
        temporary.rename(path)


def load_best(trained: Trained, output_dir: Path, index: int) -> None:
    """Put an adapter's best weights into the engine; collective."""
    import torch
    from safetensors.torch import load_file

    torch.distributed.barrier()
    name = trained.adapted.names[index]
    weights = load_file(_path(output_dir, name))
    optimizer_state.load_weights(trained.engine, trained.adapted.parameters[name], weights)


def _path(output_dir: Path, name: str) -> Path:
    return output_dir / "best" / f"{name}.safetensors"
