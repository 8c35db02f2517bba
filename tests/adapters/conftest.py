"""A store, an adapter folder to publish into it, and an S3 server."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from adapters import AdapterStore
from tests.adapters.folders import write_adapter
from tests.adapters.s3 import S3Server


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    """A local store whose folder does not exist yet."""
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A valid Propulsion adapter folder."""
    return write_adapter(tmp_path / "adapter")


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3_server(_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A running S3 server, which the environment names."""
    for key, value in _s3_server.environment.items():
        monkeypatch.setenv(key, value)
    return _s3_server


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """An empty bucket."""
    name = f"bucket-{uuid4().hex}"
    s3_server.create_bucket(name)
    return name
