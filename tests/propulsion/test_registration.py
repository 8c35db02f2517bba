import subprocess
import sys

import pytest


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_import_is_cheap() -> None:
    heavy = "{'torch', 'peft', 'transformers', 'ray', 'vllm', 'deepspeed'}"
    code = "import {0}, sys; print(sorted({1} & sys.modules.keys()))"
    for package in ("propulsion", "propulsion.cli", "adapters", "trainer", "serving", "cluster"):
        assert run(code.format(package, heavy)) == "[]", package


CHECK = "; print(mapping.PEFT_TYPE_TO_TUNER_MAPPING['PROPULSION'].__name__)"


@pytest.mark.parametrize(
    "imports",
    [
        "import propulsion; from peft import mapping",
        "from peft import mapping; import propulsion",
        "from propulsion import PropulsionConfig; from peft import mapping",
        "import propulsion.model; from peft import mapping",
        "import propulsion.config; from peft import mapping",
        "import propulsion.layer; from peft import mapping",
        # transformers looks for peft's spec without importing it.
        "import propulsion, importlib.util; importlib.util.find_spec('peft'); "
        "from peft import mapping",
    ],
)
def test_method_is_registered_in_either_order(imports: str) -> None:
    assert run(imports + CHECK) == "PropulsionModel"
