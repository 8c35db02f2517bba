"""The command `propulsion serve`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from serving.config import ServeConfig, serve_config

_FIELDS = ServeConfig.model_fields


def _option(field: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=_FIELDS[field].description, **options)


def serve(
    base: Annotated[Path, _option("base", "--base")],
    store: Annotated[Path, _option("store", "--store")],
    host: Annotated[str, _option("host")] = _FIELDS["host"].default,
    port: Annotated[int, _option("port")] = _FIELDS["port"].default,
    served_name: Annotated[str | None, _option("served_name")] = None,
    max_adapters: Annotated[int, _option("max_adapters")] = _FIELDS["max_adapters"].default,
    max_cpu_adapters: Annotated[int | None, _option("max_cpu_adapters")] = None,
    dtype: Annotated[str, _option("dtype")] = _FIELDS["dtype"].default,
    enforce_eager: Annotated[bool | None, _option("enforce_eager")] = None,
    max_model_len: Annotated[int | None, _option("max_model_len")] = None,
    api_key: Annotated[
        list[str] | None,
        _option("api_keys", "--api-key", envvar="PROPULSION_API_KEY", show_envvar=False),
    ] = None,
    metrics_top_adapters: Annotated[int, _option("metrics_top_adapters")] = _FIELDS[
        "metrics_top_adapters"
    ].default,
    drain_seconds: Annotated[int, _option("drain_seconds")] = _FIELDS["drain_seconds"].default,
    vllm_args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- VLLM OPTIONS]", help=_FIELDS["vllm_args"].description),
    ] = None,
) -> None:
    """Serve a base model and every adapter of a store to OpenAI clients."""
    config = serve_config(
        base=base,
        store=store,
        host=host,
        port=port,
        served_name=served_name,
        max_adapters=max_adapters,
        max_cpu_adapters=max_cpu_adapters,
        dtype=dtype,
        enforce_eager=enforce_eager,
        max_model_len=max_model_len,
        api_keys=tuple(api_key or ()),
        metrics_top_adapters=metrics_top_adapters,
        drain_seconds=drain_seconds,
        vllm_args=tuple(vllm_args or ()),
    )
    # Imported here so that `--help` and a wrong option answer at once.
    from serving.server import run

    raise typer.Exit(run(config))
