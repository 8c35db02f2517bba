"""Copying a base model to a pod, as its init container does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cluster.deploy.fetch_base import fetch_base
from propulsion.errors import ConfigError, PropulsionError
from tests.adapters.s3 import S3Server


@pytest.fixture
def bucket() -> Iterator[str]:
    files = fsspec.filesystem("memory")
    files.pipe("/models/tiny/config.json", b"{}")
    files.pipe("/models/tiny/weights/one.safetensors", b"\x00" * 10)
    yield "memory://models/tiny"
    files.rm("/models", recursive=True)


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_folder_itself_is_what_is_copied(bucket: str, slash: str, tmp_path: Path) -> None:
    target = tmp_path / "base"
    fetch_base(bucket + slash, target)
    assert (target / "config.json").read_bytes() == b"{}"
    assert (target / "weights" / "one.safetensors").stat().st_size == 10


def test_a_container_that_starts_again_copies_again(bucket: str, tmp_path: Path) -> None:
    target = tmp_path / "base"
    fetch_base(bucket, target)
    (target / "config.json").write_bytes(b"half")
    fetch_base(bucket, target)
    assert (target / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("url", ["memory://models/none", "nosuch://models/tiny"])
def test_a_url_without_a_model_is_told_in_one_line(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=url):
        fetch_base(url, tmp_path / "base")
    result = subprocess.run(
        [sys.executable, "-m", "cluster.deploy.fetch_base", url, str(tmp_path / "base")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "base").exists()


def test_a_bucket_is_read_with_the_credentials_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = S3Server()
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.create_bucket("models")
        files = fsspec.filesystem("s3", skip_instance_cache=True)
        files.pipe("models/tiny/config.json", b"{}")
        files.pipe("models/tiny/weights/one.safetensors", b"\x00" * 10)
        fetch_base("s3://models/tiny", tmp_path / "base")
        assert (tmp_path / "base" / "weights" / "one.safetensors").stat().st_size == 10
        server.stop()
        with pytest.raises(PropulsionError, match="s3://models/tiny cannot be copied"):
            fetch_base("s3://models/tiny", tmp_path / "other")
    finally:
        server.close()
