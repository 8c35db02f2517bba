"""Python code in processes of its own, to be limited, killed, or run beside others."""

import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(
    code: str, *args: object, preexec: Callable[[], None] | None = None
) -> "subprocess.Popen[str]":
    """Start Python code; it finds `args` in sys.argv[1:] and the packages on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=preexec,
    )


def output(process: "subprocess.Popen[str]") -> str:
    """What it printed, once it has ended without an error."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def limit_file_size(limit: int) -> Callable[[], None]:
    """For `preexec`: no file may grow beyond so many bytes, as if the disk were full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def in_mount_namespace(script: str, *args: object) -> "subprocess.CompletedProcess[str]":
    """A shell script that may mount file systems that nobody else sees."""
    return subprocess.run(
        [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "bash",
            "-ec",
            script,
            "-",
            *map(str, args),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
