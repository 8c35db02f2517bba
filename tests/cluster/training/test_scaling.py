"""What Ray Train is asked for, by the run file and by what the cluster has or can grow to."""

import pytest

from cluster.training.queue_config import Capacity
from cluster.training.ray_train import scaling_config
from propulsion.errors import ConfigError
from trainer.config import ClusterSection


@pytest.mark.parametrize(
    ("settings", "capacity", "workers", "use_gpu"),
    [
        ({"workers": 4}, Capacity(cpus=8), 4, False),
        ({"workers": 4}, Capacity(cpus=8, gpus=4), 4, True),
        ({"workers": 4}, Capacity(cpus=8, gpus=3), 4, False),
        ({"workers": 2, "gpus": False}, Capacity(cpus=8, gpus=8), 2, False),
        ({"workers": [1, 4]}, Capacity(cpus=8, gpus=2), (1, 4), True),
        ({"workers": [1, 4], "cpus_per_worker": 8}, Capacity(cpus=8), (1, 4), False),
    ],
)
def test_gpus_are_taken_where_there_are_enough(
    settings: dict, capacity: Capacity, workers: object, use_gpu: bool
) -> None:
    scaling = scaling_config(ClusterSection(**settings), capacity)
    assert scaling.num_workers == workers
    assert scaling.use_gpu is use_gpu


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"workers": 9}, "9 workers need as many CPUs, Ray has 2 GPUs and 8 CPUs"),
        ({"workers": [3, 4], "gpus": True}, "3 workers need as many GPUs"),
        ({"workers": 2, "cpus_per_worker": 5, "gpus": False}, "2 workers need as many CPUs"),
    ],
)
def test_what_never_fits_is_told(settings: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        scaling_config(ClusterSection(**settings), Capacity(cpus=8, gpus=2))
