"""Adapters with values as training might leave them."""

import torch


def randomize(model: torch.nn.Module, seed: int = 0, size: float = 0.02, adapter: str = "") -> None:
    """Draw every offset (of one adapter, if named) from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "propulsion_delta" in name and name.endswith(adapter):
            parameter.data = torch.randn(parameter.shape, generator=generator) * size
