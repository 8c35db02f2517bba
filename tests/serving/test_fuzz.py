"""Requests made from the live server's own description, well formed and not."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup

from adapters import AdapterStore, base_fingerprint
from tests.serving.live_server import LiveServer

pytestmark = pytest.mark.slow

# Ours, and vLLM's that a client of this server uses.
ROUTES = (
    "/admin/v1/",
    "/v1/models",
    "/v1/completions",
    "/v1/chat/completions",
    "/tokenize",
    "/detokenize",
    "/version",
)
# vLLM's own, not used here: /v1/chat/completions/batch, the draft and Anthropic APIs, scaling.
NOT_FUZZED = ("/v1/chat/completions/batch",)
EXAMPLES = 25


@pytest.fixture(scope="module")
def server(base: Path, adapter_folders, tmp_path_factory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("fuzz")
    store = AdapterStore(folder / "store")
    for name in ("attn-1", "mlp-3"):
        store.publish(adapter_folders[name], name, base_fingerprint=base_fingerprint(base))
    template = folder / "template.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    server = LiveServer(base, store.path, folder / "log", "--", "--chat-template", str(template))
    yield server
    server.stop()


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_request_is_a_server_error_and_the_server_lives_on(server, mode):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [
        found.ok()
        for found in schema.get_all_operations()
        if found.ok().path.startswith(ROUTES) and found.ok().path not in NOT_FUZZED
    ]
    assert len(operations) >= 18
    failures = []
    for operation in operations:
        if mode is schemathesis.GenerationMode.NEGATIVE and not operation_takes_input(operation):
            continue

        @seed(0)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case) -> None:
            keep_short(case)
            case.call_and_validate(checks=[not_a_server_error], timeout=60)

        try:
            answers()
        except (Exception, FailureGroup) as error:
            failures.append(f"{operation.method} {operation.path}: {error}")
    assert not failures, "\n\n".join(failures)
    answer = server.complete("attn-1", "why is", 2)
    assert answer.status_code == 200, answer.text


def operation_takes_input(operation) -> bool:
    return bool(list(operation.iter_parameters()) or operation.body)


def keep_short(case) -> None:
    """A model that exists, so that requests get past it, and an answer of a few tokens."""
    if isinstance(case.body, dict) and case.body.keys() & {"prompt", "messages"}:
        case.body["max_tokens"] = 2
        case.body["model"] = "attn-1"
