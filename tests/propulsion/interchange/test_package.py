import subprocess
import sys

import pytest

from propulsion import interchange


def test_import_is_cheap() -> None:
    code = (
        "import propulsion.interchange, sys; "
        "print(sorted({'torch', 'peft', 'safetensors', 'transformers'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout.strip() == "[]"


def test_functions_are_found_and_others_are_not() -> None:
    for name in interchange.__all__:
        assert callable(getattr(interchange, name))
    with pytest.raises(AttributeError, match="no attribute 'import_other'"):
        interchange.import_other  # noqa: B018
