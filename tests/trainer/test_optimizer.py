import pytest
import torch

from trainer.config import TrainingSection
from trainer.loss_scale import LossScale
from trainer.optimizer import AdapterAdamW


def optimizer(**settings: object) -> tuple[AdapterAdamW, dict[str, torch.nn.Parameter]]:
    torch.manual_seed(0)
    parameters = {name: torch.nn.Parameter(torch.randn(5)) for name in ("a", "b")}
    made = AdapterAdamW(
        {name: [p] for name, p in parameters.items()},
        {name: TrainingSection(steps=1, **settings) for name in parameters},
        partitioned=False,
        scale=LossScale(),
    )
    return made, parameters


def test_each_adapter_steps_as_adamw_with_its_own_clipping_would() -> None:
    made, parameters = optimizer(clip=0.5, weight_decay=0.1)
    torch.manual_seed(1)
    gradients = {"a": torch.randn(5) * 100, "b": torch.randn(5) * 0.01}
    for name, parameter in parameters.items():
        alone = torch.nn.Parameter(parameter.detach().clone())
        reference = torch.optim.AdamW([alone], lr=0.3, weight_decay=0.1)
        alone.grad = gradients[name].clone()
        torch.nn.utils.clip_grad_norm_([alone], 0.5)
        reference.step()
        gradients[name] = (gradients[name], alone.detach())
    for name, parameter in parameters.items():
        parameter.grad = gradients[name][0].clone()
    made.begin_step({"a": 0.3, "b": 0.3})
    made.step()
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach(), gradients[name][1])


def test_adapter_that_takes_no_part_keeps_weights_and_moments() -> None:
    made, parameters = optimizer()
    before = parameters["b"].detach().clone()
    for parameter in parameters.values():
        parameter.grad = torch.ones(5)
    made.begin_step({"a": 0.1})
    made.step()
    torch.testing.assert_close(parameters["b"].detach(), before, rtol=0, atol=0)
    assert not made.state[parameters["b"]]
    assert parameters["b"].grad is not None


def test_gradient_that_is_not_finite_stops_its_own_adapter_alone() -> None:
    made, parameters = optimizer()
    before = {name: p.detach().clone() for name, p in parameters.items()}
    parameters["a"].grad = torch.tensor([1.0, float("nan"), 1.0, 1.0, 1.0])
    parameters["b"].grad = torch.ones(5)
    made.begin_step({"a": 0.1, "b": 0.1})
    made.step()
    assert made.not_finite == {"a"}
    assert torch.equal(parameters["a"], before["a"])
    assert not torch.equal(parameters["b"], before["b"])


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_loss_scale_is_taken_out_before_clipping(scale: float) -> None:
    made, parameters = optimizer(clip=1.0)
    made.scale.value = scale
    gradient = torch.full((5,), 3.0)
    parameters["a"].grad = gradient * scale
    made.begin_step({"a": 0.1})
    made.step()
    clipped = gradient / gradient.norm()
    moment = made.state[parameters["a"]]["exp_avg"]
    torch.testing.assert_close(moment, 0.1 * clipped)


def test_loss_scale_halves_on_overflow_and_grows_again() -> None:
    scale = LossScale.for_dtype("fp16")
    assert scale.value == 2.0**16
    scale.update(overflowed=True)
    assert scale.value == 2.0**15
    for _ in range(1000):
        scale.update(overflowed=False)
    assert scale.value == 2.0**16
    for dtype in ("fp32", "bf16"):
        fixed = LossScale.for_dtype(dtype)
        fixed.update(overflowed=True)
        assert fixed.value == 1.0
