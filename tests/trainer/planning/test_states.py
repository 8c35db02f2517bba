"""The formula against DeepSpeed's estimators, for which all parameters are trained in 16 bit."""

import os

import pytest

from tests.trainer.planning.examples import EMBEDDINGS, PARAMETERS
from trainer.planning.states import Placement, TrainedBytes, adapter_bytes, state_memory

ON_DEVICE_16_BIT = TrainedBytes(weight=2, gradient=2 + 4, staging=0, master=4)
"""A 16-bit gradient and its fp32 copy, as the estimator of stage 2 counts them."""

ONE_GRADIENT_16_BIT = TrainedBytes(weight=2, gradient=4, staging=0, master=4)
"""Of the two gradients only the fp32 one, as it is counted at stage 3 and in the host's memory."""


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    if "DS_ACCELERATOR" not in os.environ:
        monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def whole_model_trained(
    name: str, placement: Placement, gpus: int, per: TrainedBytes
) -> tuple[float, float]:
    """Bytes on each device, and in the memory of the one host."""
    states = state_memory(
        placement,
        gpus,
        frozen_bytes=0,
        trained=[PARAMETERS[name]],
        per_trained=per,
        gathered_bytes=4 * EMBEDDINGS[name],
    )
    return states.device, states.host * gpus


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("gpus", [1, 4, 8])
def test_stage_2_is_what_deepspeed_estimates(name: str, gpus: int) -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    _, wanted = estimate_zero2_model_states_mem_needs(
        PARAMETERS[name], gpus, 1, cpu_offload=False, additional_buffer_factor=1
    )
    device, host = whole_model_trained(name, Placement(2), gpus, ON_DEVICE_16_BIT)
    assert device == pytest.approx(wanted, rel=0.1)
    assert host == 0


@pytest.mark.parametrize("name", PARAMETERS)
# With more GPUs the estimator's figure for the host is that of loading the model once a GPU.
@pytest.mark.parametrize("gpus", [1, 4])
def test_stage_2_with_an_offloaded_optimizer_is_what_deepspeed_estimates(
    name: str, gpus: int
) -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    wanted_host, wanted = estimate_zero2_model_states_mem_needs(
        PARAMETERS[name], gpus, 1, cpu_offload=True, additional_buffer_factor=1
    )
    device, host = whole_model_trained(name, Placement(2, "cpu"), gpus, ONE_GRADIENT_16_BIT)
    assert device == pytest.approx(wanted, rel=0.1)
    assert host == pytest.approx(wanted_host, rel=0.1)


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("gpus", [1, 4, 8])
@pytest.mark.parametrize(
    "placement", [Placement(3), Placement(3, "cpu"), Placement(3, "cpu", "cpu")]
)
def test_stage_3_is_what_deepspeed_estimates(name: str, gpus: int, placement: Placement) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs

    wanted_host, wanted, _ = estimate_zero3_model_states_mem_needs(
        PARAMETERS[name],
        EMBEDDINGS[name],
        gpus,
        1,
        cpu_offload=placement.offload_optimizer is not None,
        cpu_offload_params=placement.offload_param is not None,
        additional_buffer_factor=1,
    )
    device, host = whole_model_trained(name, placement, gpus, ONE_GRADIENT_16_BIT)
    assert device == pytest.approx(wanted, rel=0.1)
    if placement.offload_optimizer is not None:
        assert host == pytest.approx(wanted_host, rel=0.1)


def test_a_frozen_base_is_divided_at_stage_3_only() -> None:
    weights = [
        state_memory(
            Placement(stage),
            8,
            frozen_bytes=8e9,
            trained=[],
            per_trained=adapter_bytes(stage),
            gathered_bytes=0,
        ).weights
        for stage in (0, 1, 2, 3)
    ]
    assert weights == [8e9, 8e9, 8e9, 1e9]


def test_nvme_is_told_apart_from_the_host() -> None:
    states = state_memory(
        Placement(3, "nvme", "cpu"),
        2,
        frozen_bytes=1000,
        trained=[60, 40],
        per_trained=adapter_bytes(3),
        gathered_bytes=70,
    )
    assert (states.device, states.host, states.nvme) == (70, 700, 50 * 20)


def test_names_say_what_is_where() -> None:
    assert Placement(2).name == "2"
    assert Placement(3, "nvme", "cpu").name == "3, optimizer on nvme, param on cpu"
