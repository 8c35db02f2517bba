"""Lets a running server answer prompts, through OpenAI's completions interface."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from propulsion.errors import ConfigError, PropulsionError

SECONDS_PER_ANSWER = 600.0
"""A busy server lets a request wait; this is when it counts as lost."""


def complete(
    url: str,
    model_name: str,
    prompts: Sequence[str | Sequence[int]],
    max_tokens: int,
    api_key: str | None = None,
    concurrency: int = 16,
) -> list[str]:
    """The greedy continuation of each prompt, in their order.

    Args:
        url: of the server, with or without `/v1`.
        model_name: what it calls the base or the adapter, as `sst2@latest`.
        prompts: texts, or token ids, which the server takes as they are.
        max_tokens: most tokens of a continuation.
        api_key: sent as a bearer token.
        concurrency: requests that are under way at once.

    Raises:
        ConfigError: nothing answers there, or the server does not know the model or the key.
        PropulsionError: it refused a prompt or failed.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        client = httpx.Client(
            base_url=url.rstrip("/").removesuffix("/v1"),
            headers=headers,
            timeout=SECONDS_PER_ANSWER,
            limits=httpx.Limits(max_connections=concurrency),
        )
    except httpx.InvalidURL as error:
        raise ConfigError(
            f"{url!r} is not a URL ({error}): give one as http://host:8000"
        ) from error
    with client, ThreadPoolExecutor(concurrency) as pool:
        futures = [
            pool.submit(_complete_one, client, model_name, prompt, max_tokens) for prompt in prompts
        ]
        try:
            return [future.result() for future in futures]
        except BaseException:
            # One refusal is one for all; those that wait need not be sent.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _complete_one(
    client: httpx.Client, model_name: str, prompt: str | Sequence[int], max_tokens: int
) -> str:
    body = {
        "model": model_name,
        "prompt": prompt if isinstance(prompt, str) else list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    try:
        response = client.post("/v1/completions", json=body)
    except httpx.TransportError as error:
        raise ConfigError(
            f"{client.base_url}: the server cannot be reached ({error}): check the URL and that "
            "it is running"
        ) from error
    if response.is_success:
        return _text(response)
    said = _message(response)
    if response.status_code in (401, 403):
        raise ConfigError(
            f"{client.base_url}: the server refused the API key for {model_name!r} ({said}): give "
            "one that may use this model"
        )
    if response.status_code == 404:
        raise ConfigError(
            f"{client.base_url}: the server has no model {model_name!r} ({said}): /v1/models "
            "lists what it has"
        )
    raise PropulsionError(
        f"{client.base_url}: the server answered {response.status_code} for {model_name!r}: {said}"
    )


def _text(response: httpx.Response) -> str:
    try:
        return str(response.json()["choices"][0]["text"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise PropulsionError(
            f"{response.url}: the answer is not that of a completions interface: "
            f"{response.text[:200]!r}"
        ) from error


def _message(response: httpx.Response) -> str:
    try:
        said: Any = response.json()
    except ValueError:
        return response.text[:200]
    for key in ("error", "message", "detail"):
        if isinstance(said, dict) and key in said:
            said = said[key]
    return str(said)[:500]
