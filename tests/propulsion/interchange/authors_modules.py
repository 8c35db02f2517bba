"""The scaled layers of https://github.com/Kowsher/Propulsion, written anew for their layouts."""

from collections.abc import Collection

import torch
from torch import nn


class AuthorsLinear(nn.Module):
    """With its frozen layer in a child called `linear` or `prop_linear`."""

    def __init__(self, linear: nn.Linear, degree: int, child: str = "linear") -> None:
        super().__init__()
        self.child = child
        self.add_module(child, linear)
        self.propulsion = nn.Parameter(torch.ones(linear.out_features))
        self.degree = degree

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self, self.child)(x) * self.propulsion**self.degree


class AuthorsFlatLinear(nn.Module):
    """With the weights registered directly."""

    def __init__(self, linear: nn.Linear, degree: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.propulsion = nn.Parameter(torch.ones(linear.out_features))
        self.degree = degree

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias) * self.propulsion**self.degree


class AuthorsEmbedding(nn.Module):
    def __init__(self, embedding: nn.Embedding, degree: int) -> None:
        super().__init__()
        self.embeddings = embedding
        self.propulsion = nn.Parameter(torch.ones(embedding.embedding_dim))
        self.degree = degree

    @property
    def weight(self) -> torch.Tensor:
        return self.embeddings.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.embeddings(x) * self.propulsion**self.degree


class AuthorsLayerNorm(nn.Module):
    def __init__(self, layer_norm: nn.LayerNorm, degree: int = 1) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.propulsion = nn.Parameter(torch.ones(layer_norm.normalized_shape))
        self.degree = degree

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer_norm(x) * self.propulsion**self.degree


def replace_layers(
    model: nn.Module,
    degree: int,
    targets: Collection[str] = (),
    layout: str = "linear",
    norms: bool = False,
) -> nn.Module:
    """Replace the layers whose own name is in `targets`, or all linear layers and embeddings.

    Args:
        model: changed in place.
        degree: of all but layer norms.
        targets: names of layers, without their path.
        layout: "linear", "prop_linear" or "flat".
        norms: whether layer norms are replaced too.
    """
    for name, child in model.named_children():
        is_target = not targets or name in targets
        if isinstance(child, nn.Linear) and is_target:
            flat = layout == "flat"
            new = AuthorsFlatLinear(child, degree) if flat else AuthorsLinear(child, degree, layout)
            setattr(model, name, new)
        elif isinstance(child, nn.Embedding) and is_target:
            setattr(model, name, AuthorsEmbedding(child, degree))
        elif isinstance(child, nn.LayerNorm) and norms:
            setattr(model, name, AuthorsLayerNorm(child))
        else:
            replace_layers(child, degree, targets, layout, norms)
    return model


def randomize(model: nn.Module, spread: float = 0.05) -> None:
    """Draw every z around 1."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if name.endswith(".propulsion"):
            parameter.data = 1.0 + spread * torch.randn(parameter.shape, generator=generator)
