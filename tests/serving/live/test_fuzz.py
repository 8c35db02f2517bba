"""Requests made from the live server's description of itself, well formed and not, by an admin."""

import random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup

from tests.serving import tiny

pytestmark = pytest.mark.slow

EXAMPLES = 12
# What makes answers long, by the names that different routes have for it.
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
LIMITED = {"/v1/responses": "max_output_tokens"}
# Statuses of 500 and above that are meant, with the reason.
MEANT = {
    "/v1/systemone": {501: "vLLM's: for models with a decision head, and none here has one"},
}
NAMES = ("attn-1", "key-3@v1", "nobody")
ALIASES = ("prod", "canary")


def is_vllms_fault(body: Any) -> bool:
    """Whether a past answer in /v1/responses has no parts: vLLM 0.32 reads the first, and fails."""
    messages = body.get("input") if isinstance(body, dict) else None
    return isinstance(messages, list) and any(
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and message.get("content") == []
        for message in messages
    )


def operations(live) -> list[Any]:
    headers = {"Authorization": f"Bearer {live.keys['admin']}"}
    schema = schemathesis.openapi.from_url(f"{live.server.url}/openapi.json", headers=headers)
    return [found.ok() for found in schema.get_all_operations()]


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_is_a_server_error_and_the_server_lives_on(live, expected, mode):
    found = operations(live)
    assert len(found) >= 30
    failures = [failure for operation in found for failure in fuzz(live, operation, mode)]
    assert not failures, "\n\n".join(failures)
    answer = live.server.complete("attn-1", tiny.PROMPTS[0], tiny.MAX_TOKENS)
    assert answer.json()["choices"][0]["token_ids"] == expected["attn-1"][0]


def fuzz(live, operation: Any, mode: GenerationMode) -> list[str]:
    if mode is GenerationMode.NEGATIVE and not can_be_malformed(operation):
        return []
    choose = random.Random(operation.path)
    headers = {"Authorization": f"Bearer {live.keys['admin']}"}

    @seed(0)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: Any) -> None:
        get_past_the_first_checks(case, choose)
        response = case.call(headers=headers, timeout=60)
        is_meant = response.status_code in MEANT.get(operation.path, ())
        if not is_meant and not is_vllms_fault(case.body):
            case.validate_response(response, checks=[not_a_server_error])

    try:
        answers()
    except (Exception, FailureGroup) as error:
        return [f"{mode.name} {operation.method} {operation.path}: {error}"]
    return []


def can_be_malformed(operation: Any) -> bool:
    """Whether it takes more than texts in its path, with which nothing can be wrong."""
    others = [p for p in operation.iter_parameters() if p.location != "path"]
    return bool(others or operation.body)


def get_past_the_first_checks(case: Any, choose: random.Random) -> None:
    """Adapters that exist, in most requests, and answers of a few tokens."""
    for parameter, known in (("reference", NAMES), ("name", ("attn-1",)), ("alias", ALIASES)):
        if parameter in (case.path_parameters or {}) and choose.random() < 0.75:
            case.path_parameters[parameter] = choose.choice(known)
    if not isinstance(case.body, dict):
        return
    if choose.random() < 0.5:
        known = {"version": "v1", "weights": {"v1": 1.0}}
        case.body |= {key: known[key] for key in case.body.keys() & known}
    if "model" in case.body or case.body.keys() & {"prompt", "messages", "input", "query"}:
        case.body["model"] = choose.choice(NAMES[:2])
        case.body[LIMITED.get(case.path, "max_tokens")] = 2
    for limit in case.body.keys() & set(LIMITS):
        case.body[limit] = 2
    # So many answers to one prompt would only take long.
    if isinstance(case.body.get("n"), int):
        case.body["n"] = min(case.body["n"], 2)
