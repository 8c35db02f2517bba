from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from serving.security.config import SecurityConfig
from serving.security.stack import SecuredApp, secure
from tests.serving.security import apps


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return apps.write_keys(tmp_path / "keys.yaml")


@pytest.fixture
def clock() -> apps.Clock:
    return apps.Clock()


@pytest.fixture
def secured(keys_file: Path, tmp_path: Path, clock: apps.Clock) -> SecuredApp:
    """An app behind every guard, with a keys file and an audit log."""
    config = SecurityConfig(keys_file=keys_file, audit_log=tmp_path / "audit.jsonl")
    return secure(apps.app(), config, clock=clock)


@pytest.fixture
def client(secured: SecuredApp) -> Iterator[TestClient]:
    with TestClient(secured) as client:
        yield client
