"""Real PEFT models with random adapters, and what they give out."""

from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, PeftModel, get_peft_model

from propulsion import PropulsionConfig
from tests.propulsion.adapters import randomize
from tests.propulsion.tiny_models import TINY


@torch.inference_mode()
def logits(model: torch.nn.Module, tiny: str) -> torch.Tensor:
    return model(**TINY[tiny].inputs()).logits


def save_ia3(
    tiny: str, folder: Path, low: float = 0.5, high: float = 1.5, **config: Any
) -> PeftModel:
    """A saved (IA)³ adapter with l drawn from `low` to `high`; PEFT's default targets if none."""
    model = get_peft_model(TINY[tiny].build(), IA3Config(**config))
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "ia3_l" in name:
            parameter.data = torch.empty(parameter.shape).uniform_(low, high, generator=generator)
    model.save_pretrained(folder)
    return model.eval()


def save_propulsion(tiny: str, folder: Path, **config: Any) -> PeftModel:
    """A saved Propulsion adapter with random offsets."""
    model = get_peft_model(TINY[tiny].build(), PropulsionConfig(**config))
    randomize(model)
    model.save_pretrained(folder)
    return model.eval()


def load(tiny: str, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(TINY[tiny].build(), folder).eval()
