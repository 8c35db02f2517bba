"""The processes that train a run together."""

from __future__ import annotations

import os
import random
from typing import Any

import torch


def join_ranks() -> tuple[int, int]:
    """Join the process group of torchrun or Ray, or make one of this process alone.

    Returns:
        This process's rank, and how many there are.
    """
    if not torch.distributed.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        if "RANK" in os.environ:
            torch.distributed.init_process_group(backend)
        else:
            os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
            store = torch.distributed.HashStore()
            torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed dropout for a step: the state of the generators is then a function of seed and step."""
    torch.manual_seed(random.Random(f"{seed}/{step}/{rank}").getrandbits(63))


def from_rank_0(value: Any) -> Any:
    """What rank 0 holds, on every rank."""
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]
