"""The documentation builds without a warning, names everything public, and its code runs."""

import ast
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ["propulsion", "adapters", "trainer", "serving", "cluster"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return folder


def documented(site: Path) -> set[str]:
    inventory = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(inventory.partition(b"using zlib.\n")[2]).decode().splitlines()
    return {line.split(" ")[0] for line in lines}


def public_names(package: str) -> set[str]:
    """Functions and classes by the module that defines them, and what a package exports."""
    names = set()
    for path in sorted((ROOT / package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(f"{module}.{node.name}")
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                exported = ast.literal_eval(node.value)
                names |= {f"{module}.{name}" for name in exported if not name.startswith("_")}
    return {name for name in names if not re.search(r"\._", name)}


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_documented(site: Path, package: str) -> None:
    missing = public_names(package) - documented(site)
    assert not missing
    assert public_names(package)


@pytest.mark.slow
def test_pages_hold_what_they_take_from_the_code(site: Path) -> None:
    pages = {
        name: (site / name / "index.html").read_text() for name in ("method", "training", "cli")
    }
    assert "self_attention.query_key_value" in pages["method"]
    assert "degree_pattern" in pages["method"]
    assert "training.warmup_ratio" in pages["training"]
    assert "propulsion adapters publish" in pages["cli"]
    assert not any("<!-- options" in page or "<!-- commands" in page for page in pages.values())


@pytest.mark.slow
@pytest.mark.parametrize("page", ["method", "peft", "interchange"])
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    assert code
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
