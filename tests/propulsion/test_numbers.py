"""Why the offset δ = z - 1 is what is trained, and in fp32 (design.md, section 2)."""

import torch
from peft import PeftModel, get_peft_model

from propulsion import PropulsionConfig
from tests.propulsion.tiny_llama import tiny_llama, tokens

STEPS = 20
LR = 1e-4


def train(dtype: torch.dtype, steps: int = 60) -> PeftModel:
    model = get_peft_model(
        tiny_llama().to(dtype), PropulsionConfig(preset="all", degree=15, task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)
    for _ in range(steps):
        model(input_ids=tokens(), labels=tokens()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def offsets(model: PeftModel) -> torch.Tensor:
    return torch.cat(
        [p.detach().flatten() for n, p in model.named_parameters() if "propulsion_delta" in n]
    )


@torch.inference_mode()
def loss_in_fp32(delta: torch.Tensor) -> float:
    """Of the fp32 base with these offsets, so that what was learned is all that differs."""
    model = get_peft_model(tiny_llama(), PropulsionConfig(preset="all", task_type="CAUSAL_LM"))
    parameters = [p for n, p in model.named_parameters() if "propulsion_delta" in n]
    for parameter, values in zip(
        parameters, delta.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.copy_(values.view_as(parameter))
    return model(input_ids=tokens(), labels=tokens()).loss.item()


def test_a_bf16_model_learns_what_an_fp32_model_learns() -> None:
    full, half = offsets(train(torch.float32)), offsets(train(torch.bfloat16))
    start, learned, learned_half = (loss_in_fp32(d) for d in (0 * full, full, half))
    assert start - learned > 0.01
    assert abs(learned_half - learned) < 0.1 * (start - learned)
    assert torch.cosine_similarity(full, half, dim=0) > 0.9
    assert 0.9 < half.norm() / full.norm() < 1.1


def test_a_plain_bf16_z_does_not_move_at_all() -> None:
    """The same steps on z itself, in bf16: each is far below the spacing of bf16 near 1."""
    torch.manual_seed(0)
    full, half = (torch.ones(64, dtype=d) for d in (torch.float32, torch.bfloat16))
    target = 1.0 + 0.02 * torch.randn(64)
    moved = []
    for z in (full.requires_grad_(), half.requires_grad_()):
        optimizer = torch.optim.AdamW([z], lr=LR, weight_decay=0.0)
        for _ in range(STEPS):
            (z.float().pow(15) - target.pow(15)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        moved.append((z.detach().float() - 1.0).abs())
    assert moved[0].min() > LR
    assert not moved[1].any()


def test_a_bf16_offset_does_move() -> None:
    """A 16-bit copy of δ, as mixed precision holds beside its fp32 master, keeps its precision."""
    delta = torch.zeros(64, dtype=torch.bfloat16, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=LR)
    for _ in range(STEPS):
        ((1.0 + delta.float()).pow(15) - 1.1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(
        delta.detach().float(), torch.full((64,), STEPS * LR), rtol=0.05, atol=0.0
    )
