"""The same store on every kind of place."""

from pathlib import Path
from uuid import uuid4

import pytest

from adapters import AdapterStore
from tests.adapters.contract.place import Place


@pytest.fixture(params=["local", "s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a store that holds nothing yet."""
    url = {"local": f"file://{tmp_path}/store", "memory": f"memory://{uuid4().hex}/some/store"}
    if request.param == "s3":
        url["s3"] = f"s3://{request.getfixturevalue('bucket')}/some/store"
    return Place(url[request.param], tmp_path / "cache")


@pytest.fixture
def store(place: Place) -> AdapterStore:
    """A store that holds nothing yet."""
    return place.open()
