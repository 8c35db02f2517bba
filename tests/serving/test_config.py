from pathlib import Path

import pytest
from typer import Typer
from typer.testing import CliRunner

from propulsion.errors import ConfigError
from serving import vllm_compat
from serving.cli import serve
from serving.config import is_loopback, serve_config


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for name in ("base", "store"):
        (tmp_path / name).mkdir()
    return {"base": tmp_path / "base", "store": tmp_path / "store"}


def test_defaults_listen_on_loopback_and_need_no_key(folders):
    config = serve_config(**folders)
    assert config.host == "127.0.0.1"
    assert config.model_name == "base"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_an_open_address_without_a_key_is_refused(folders, host):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="--api-key"):
        serve_config(**folders, host=host)
    assert serve_config(**folders, host=host, api_keys=("secret",)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_addresses_need_no_key(folders, host):
    assert serve_config(**folders, host=host).host == host


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_no_key(folders, key):
    with pytest.raises(ConfigError, match="API key is empty"):
        serve_config(**folders, host="0.0.0.0", api_keys=(key,))


def test_keys_do_not_show_in_the_configuration(folders):
    assert "hunter2" not in repr(serve_config(**folders, api_keys=("hunter2",)))


def test_an_unknown_option_is_named(folders):
    with pytest.raises(ConfigError, match="portt"):
        serve_config(**folders, portt=1)


@pytest.mark.parametrize("missing", ["base", "store"])
def test_a_missing_folder_is_named(folders, missing, tmp_path):
    with pytest.raises(ConfigError, match=f"--{missing} .*nowhere"):
        serve_config(**{**folders, missing: tmp_path / "nowhere"})


def test_the_command_line_refuses_an_open_address_and_takes_the_key_from_the_environment(
    folders, monkeypatch
):
    served = []
    monkeypatch.setattr("serving.server.run", lambda config: served.append(config) or 0)
    app = Typer()
    app.command()(serve)
    command = ["--base", str(folders["base"]), "--store", str(folders["store"])]
    refused = CliRunner().invoke(app, [*command, "--host", "0.0.0.0"])
    assert isinstance(refused.exception, ConfigError)
    assert not served
    accepted = CliRunner().invoke(
        app,
        [*command, "--host", "0.0.0.0", "--", "--seed", "3"],
        env={"PROPULSION_API_KEY": "secret"},
    )
    assert accepted.exit_code == 0
    assert served[0].api_keys[0].get_secret_value() == "secret"
    assert served[0].vllm_args == ("--seed", "3")


@pytest.mark.parametrize("version", ["0.25.1", "0.33.0", "1.0"])
def test_an_unsupported_vllm_is_refused_with_the_supported_range(version):
    said = rf"vLLM {version} is not supported(?=.*0\.26)(?=.*0\.33)"
    with pytest.raises(ConfigError, match=said):
        vllm_compat.require_supported(version)


@pytest.mark.parametrize("version", ["0.26.0", "0.31.2", "0.32.0", "0.32.1", "0.32.0+cpu"])
def test_supported_versions_of_vllm_are_accepted(version):
    vllm_compat.require_supported(version)


def test_the_installed_vllm_is_supported():
    vllm_compat.require_supported()
