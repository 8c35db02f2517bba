import pytest

from tests.adapters.processes import output, start

HEAVY = [
    *("torch", "transformers", "peft", "numpy", "safetensors", "vllm", "ray", "deepspeed"),
    *("fsspec", "s3fs", "botocore", "huggingface_hub", "rich.table"),
]
REPORT = """
    import sys
    {code}
    print(*(name for name in sys.argv[1:] if name in sys.modules))
"""
PUBLISH = """
    import pathlib, tempfile
    from adapters import AdapterStore
    from tests.adapters.folders import write_adapter
    folder = pathlib.Path(tempfile.mkdtemp())
    store = AdapterStore(folder / "store")
    store.verify(store.publish(write_adapter(folder / "a"), "a"))
"""


@pytest.mark.parametrize("module", ["adapters", "adapters.cli"])
def test_import_is_cheap(module: str) -> None:
    assert output(start(REPORT.format(code=f"import {module}"), *HEAVY)).split() == []


def test_publishing_and_verifying_need_no_torch() -> None:
    assert output(start(REPORT.format(code=PUBLISH.strip()), "torch", "vllm")).split() == []
