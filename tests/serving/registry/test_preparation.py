import pytest

from propulsion.errors import AdapterCorruptError, BaseMismatchError
from serving.registry.preparation import preparation
from tests.serving.registry.stores import publish

FINGERPRINT = f"sha256:{'0' * 64}"


def test_an_adapter_of_this_base_or_of_any_is_prepared(store):
    publish(store, "a", base_fingerprint=FINGERPRINT)
    publish(store, "b")
    prepare = preparation(store, FINGERPRINT, "models/tiny")
    for name in "ab":
        with prepare(store.resolve(name)) as version:
            assert (version.path / "adapter_config.json").is_file()


def test_an_adapter_of_another_base_is_refused(store):
    publish(store, "a", base_fingerprint=f"sha256:{'1' * 64}")
    prepare = preparation(store, FINGERPRINT, "models/tiny")
    with pytest.raises(BaseMismatchError), prepare(store.resolve("a")):
        pass


def test_a_damaged_adapter_is_refused(store):
    publish(store, "a")
    file = store.resolve("a").path / "adapter_model.safetensors"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1])
    prepare = preparation(store, FINGERPRINT, "models/tiny")
    with pytest.raises(AdapterCorruptError, match="adapter_model"), prepare(store.resolve("a")):
        pass
