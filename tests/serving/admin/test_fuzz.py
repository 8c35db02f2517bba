"""Requests made from the API's own description, well formed and not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.serving.registry.stores import publish

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_no_request_is_a_server_error_and_every_answer_is_as_described(store, bench, mode):
    for name in ("a", "b", "misfit"):
        publish(store, name, 2)
    schema = schemathesis.openapi.from_asgi("/openapi.json", bench.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 13
    if mode is schemathesis.GenerationMode.NEGATIVE:
        # Without parameters there is nothing to get wrong.
        operations = [operation for operation in operations if "status" not in operation.path]
    for operation in operations:

        @settings(
            max_examples=10,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers(case) -> None:
            case.call_and_validate(checks=[not_a_server_error, response_schema_conformance])

        answers()
