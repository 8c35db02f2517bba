"""The container files, by a real linter and by what the chart expects of the images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.deploy.kubernetes.values import Values
from propulsion.kernels.compiler import ARCHITECTURES
from tests.cluster.deploy.values import SMALL, manifests, pod_templates

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "cluster" / "deploy" / "containers").glob("*.Dockerfile"))
HADOLINT = Path(sys.executable).parent / "hadolint"

Instruction = tuple[str, str]


def lint(path: Path) -> list[dict[str, str]]:
    command = shutil.which("hadolint") or HADOLINT
    result = subprocess.run(
        [command, "--no-color", "--format", "json", path], capture_output=True, check=False
    )
    return json.loads(result.stdout)


def instructions(path: Path) -> list[Instruction]:
    """Names and arguments; comments are left out and continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    text = "\n".join(lines).replace("\\\n", " ")
    pairs = [line.partition(" ") for line in text.splitlines() if line.strip()]
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def last_stage(path: Path) -> list[Instruction]:
    found = instructions(path)
    starts = [index for index, (name, _) in enumerate(found) if name == "FROM"]
    assert len(starts) > 1, "what builds must not be in the image that runs"
    return found[starts[-1] :]


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_a_file_for_cpus_and_one_for_gpus() -> None:
    assert [path.stem for path in FILES] == ["cpu", "cuda"]


def test_the_linter_finds_nothing(file: Path) -> None:
    assert lint(file) == []


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text("FROM python:latest\nRUN apt-get install gcc\nRUM true\n")
    assert lint(path)


def test_images_are_pinned_to_a_version(file: Path) -> None:
    args = dict(
        rest.split("=", 1) for name, rest in instructions(file) if name == "ARG" and "=" in rest
    )
    for name, rest in instructions(file):
        if name == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda match: args[match.group(1)], rest.split()[0])
            assert re.search(r":\d+\.\d+\.\d+-", image), image


def test_the_user_is_the_charts_and_not_root(file: Path) -> None:
    users = [rest for name, rest in last_stage(file) if name == "USER"]
    found = manifests(SMALL)
    pod = pod_templates(found)["serving worker"]["spec"]["securityContext"]
    assert users == [f"{pod['runAsUser']}:{pod['runAsGroup']}"]


def test_health_is_asked_of_the_port_that_is_exposed(file: Path) -> None:
    stage = dict(last_stage(file))
    assert f":{stage['EXPOSE']}/health" in stage["HEALTHCHECK"]


def test_what_kuberay_calls_in_a_pod_is_in_the_image(file: Path) -> None:
    packages = next(rest for name, rest in last_stage(file) if name == "RUN")
    assert "wget" in packages


def test_only_pinned_versions_are_installed(file: Path) -> None:
    runs = " ".join(rest for name, rest in instructions(file) if name == "RUN")
    assert f"install.sh {file.stem}" in runs
    installs = re.findall(r"uv pip install (.*?)(?:&&|$)", runs)
    assert installs
    assert all("--no-deps" in one for one in installs)
    assert "pip install" not in re.sub(r"uv pip install", "", runs)


def test_cuda_kernels_are_compiled_for_every_gpu_that_is_supported() -> None:
    (cuda,) = [path for path in FILES if path.stem == "cuda"]
    found = instructions(cuda)
    assert ("ARG", f"ARCHITECTURES={','.join(map(str, ARCHITECTURES))}") in found
    runs = " ".join(rest for name, rest in found if name == "RUN")
    assert "propulsion.kernels.build --device cuda" in runs


def test_the_ignore_file_lets_in_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = [line[1:] for line in patterns if line.startswith("!")]
    for pattern in allowed:
        assert list(ROOT.glob(pattern)), pattern
    for path in FILES:
        for name, rest in instructions(path):
            if name != "COPY" or rest.startswith("--from") or rest == ". .":
                continue
            source = Path(rest.split()[0])
            assert any(source.match(one) or source.parts[0] == one.split("/")[0] for one in allowed)
    assert not {"tests", "runs", ".git", "examples"} & {one.split("/")[0] for one in allowed}


def test_ray_in_the_image_is_the_ray_that_the_chart_names() -> None:
    for accelerator in ("cpu", "cuda"):
        lock = (ROOT / "requirements" / f"{accelerator}.lock").read_text()
        assert f"\nray=={Values.model_fields['ray_version'].default}\n" in lock
