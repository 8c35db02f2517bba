"""The contract, for the implementations that this machine does not choose by itself.

Each in a process of its own: Triton decides on import whether it interprets, and an emulated kernel
takes the place of the CPU's.
"""

import pytest
import torch

from propulsion.kernels import compiler
from tests.propulsion.kernels.implementations import run_contract

pytestmark = pytest.mark.slow


def test_the_triton_kernels_in_their_interpreter() -> None:
    pytest.importorskip("triton")
    run_contract("triton", TRITON_INTERPRET="1")


@pytest.mark.skipif(compiler.cxx() is None, reason="no C++ compiler")
def test_the_cuda_sources_in_an_emulation() -> None:
    run_contract("emulated")


def test_the_references_through_the_operators() -> None:
    run_contract("torch")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_what_runs_on_the_gpu() -> None:
    run_contract("cuda", PROPULSION_KERNELS="auto")
