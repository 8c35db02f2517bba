import subprocess
import sys
from pathlib import Path


def propulsion(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "propulsion", *args],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_help_names_every_command() -> None:
    result = propulsion("--help")
    assert result.returncode == 0
    for command in ("train", "eval", "adapters", "serve", "demo"):
        assert command in result.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from propulsion.cli import build_app\n"
        "for args in (['--help'], ['train', '--help'], ['serve', '--help']):\n"
        "    assert CliRunner().invoke(build_app(), args).exit_code == 0\n"
        "print(sorted({'torch', 'ray', 'vllm', 'deepspeed', 'peft'} & sys.modules.keys()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_user_error_is_one_message_without_traceback(tmp_path: Path) -> None:
    result = propulsion("train", str(tmp_path / "missing.yaml"))
    assert result.returncode == 2
    assert "missing.yaml: no such run file" in result.stderr
    assert "Traceback" not in result.stderr
