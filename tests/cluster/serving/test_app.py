from pathlib import Path

import pytest
import yaml

from cluster.serving.app import build
from propulsion.errors import ConfigError


@pytest.fixture
def args(tmp_path: Path) -> dict:
    for name in ("base", "store"):
        (tmp_path / name).mkdir()
    return {"base": str(tmp_path / "base"), "store": str(tmp_path / "store")}


def test_an_application_is_built_from_what_yaml_gives(args):
    text = yaml.safe_dump({**args, "max_replicas": 8, "affinity": {"load_factor": 1.5}})
    app = build(yaml.safe_load(text))
    assert type(app).__name__ == "Application"


@pytest.mark.parametrize("wrong", [{"min_replica": 2}, {"base": "/nowhere"}, {"host": "0.0.0.0"}])
def test_wrong_arguments_are_refused_before_anything_starts(args, wrong):
    with pytest.raises(ConfigError):
        build({**args, **wrong})
