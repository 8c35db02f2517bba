import pytest

from propulsion.errors import ConfigError
from serving.registry.servable import blended, single
from tests.serving.registry.stores import publish, publish_lora


def test_a_version_is_servable_by_its_reference(store):
    publish(store, "a")
    servable = single(store.resolve("a"))
    assert servable.reference == "a@v1"
    assert not servable.is_blend


def test_a_blend_is_the_same_whatever_the_order_of_its_parts(store):
    publish(store, "a", 2)
    publish(store, "b")
    parts = [(store.resolve("b"), 0.5), (store.resolve("a@v1"), 0.25), (store.resolve("a"), 2.0)]
    servable = blended(parts)
    assert servable.reference == "a@v1:0.25+a@v2:2+b@v1:0.5"
    assert servable == blended(reversed(parts))


def test_a_version_met_twice_is_one_part(store):
    publish(store, "a")
    version = store.resolve("a")
    assert blended([(version, 0.5), (version, 0.25)]).reference == "a@v1:0.75"
    assert blended([(version, 0.5), (version, 0.5)]) == single(version)
    with pytest.raises(ConfigError, match="add up to 0"):
        blended([(version, 0.5), (version, -0.5)])


def test_a_lora_adapter_is_servable_alone_and_in_no_blend(store):
    publish(store, "a")
    publish_lora(store, "lora")
    lora, scales = store.resolve("lora"), store.resolve("a")
    assert single(lora).reference == "lora@v1"
    for parts in ([(lora, 0.5)], [(lora, 1.0), (scales, 1.0)]):
        with pytest.raises(ConfigError, match="lora@v1 is a LoRA adapter"):
            blended(parts)
