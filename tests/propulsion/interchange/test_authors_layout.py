import pytest
import torch

from propulsion.errors import AdapterCorruptError
from propulsion.interchange.authors_layout import find_layers, plain_names

Z = torch.ones(3)


@pytest.mark.parametrize(
    ("weights", "shape", "output_dim", "is_norm"),
    [
        ("layer.linear", (3, 5), 0, False),
        ("layer.prop_linear", (3, 5), 0, False),
        ("layer.embeddings", (5, 3), -1, False),
        ("layer.embeddings", (3, 3), -1, False),
        ("layer.layer_norm", (3,), 0, True),
        ("layer", (3, 5), 0, False),
        ("layer", (5, 3), -1, False),
        ("layer", (3,), 0, True),
    ],
)
def test_kind_of_layer_is_told_by_names_and_shapes(
    weights: str, shape: tuple[int, ...], output_dim: int, is_norm: bool
) -> None:
    tensors = {"layer.propulsion": Z, f"{weights}.weight": torch.ones(shape)}
    layer = find_layers(tensors)["layer"]
    assert (layer.weights, layer.output_dim, layer.is_norm) == (weights, output_dim, is_norm)


def test_names_are_those_of_the_unchanged_model() -> None:
    tensors = {
        "a.embeddings.word.propulsion": Z,
        "a.embeddings.word.embeddings.weight": torch.ones(5, 3),
        "a.linear.bias": torch.zeros(3),
        "a.q.linear.weight": torch.ones(3, 5),
        "a.q.linear.bias": torch.ones(3),
        "a.q.propulsion": Z,
        "count": torch.tensor(1),
    }
    plain = plain_names(tensors, find_layers(tensors))
    assert set(plain) == {
        "a.embeddings.word.weight",
        "a.linear.bias",
        "a.q.weight",
        "a.q.bias",
        "count",
    }
    assert plain["a.q.bias"] is tensors["a.q.linear.bias"]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"layer.weight": torch.ones(3, 5)}, "nothing is scaled"),
        ({"layer.propulsion": Z}, "no weight for that layer"),
        ({"layer.propulsion": Z, "layer.linear.weight": torch.ones(5, 3)}, "does not fit"),
        ({"layer.propulsion": Z, "layer.weight": torch.ones(5, 4)}, "does not fit"),
        ({"layer.propulsion": Z[None], "layer.weight": torch.ones(3, 3)}, "does not fit"),
        ({"layer.propulsion": Z.long(), "layer.weight": torch.ones(3, 3)}, "int64"),
        ({"layer.propulsion_dense": Z, "layer.dense.weight": torch.ones(3, 3)}, "edited to scale"),
        ({"layer.propulsion_dense.0": Z, "layer.propulsion": Z}, "propulsion_dense.0"),
        ({"base_model.model.fc.propulsion_delta.default": Z}, "state dicts of PEFT"),
    ],
)
def test_other_layouts_are_refused(tensors: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(AdapterCorruptError, match=message):
        find_layers(tensors)
