"""Who is answered what, by key and route."""

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serving.security.config import SecurityConfig
from serving.security.stack import secure
from tests.serving.security import apps
from tests.serving.security.apps import (
    ADMIN_KEY,
    EXPIRED_KEY,
    INFERENCE_KEY,
    OTHER_KEY,
    WRONG_KEY,
    bearer,
    record,
)
from tests.serving.security.test_routes import ADMIN_PATHS

ADMIN_CALLS = [
    ("GET", "/admin/v1/status"),
    ("GET", "/admin/v1/adapters"),
    ("GET", "/admin/v1/adapters/a@v1"),
    ("POST", "/admin/v1/adapters/a@v1/load"),
    ("POST", "/admin/v1/adapters/a@v1/unload"),
    ("POST", "/admin/v1/adapters/a@v1/pin"),
    ("POST", "/admin/v1/adapters/a@v1/unpin"),
    ("POST", "/admin/v1/adapters/a@v1/verify"),
    ("GET", "/admin/v1/adapters/a/aliases"),
    ("PUT", "/admin/v1/adapters/a/aliases/prod"),
    ("DELETE", "/admin/v1/adapters/a/aliases/prod"),
    ("PUT", "/admin/v1/adapters/a/splits/prod"),
    ("DELETE", "/admin/v1/adapters/a/splits/prod"),
    *(("POST", path) for path in ADMIN_PATHS if path != "/"),
]
REFUSED = [(None, 401), (WRONG_KEY, 401), ("", 401), (EXPIRED_KEY, 401), (INFERENCE_KEY, 403)]


def error_of(response, status: int) -> dict:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    return error


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
def test_admin_routes_refuse_all_but_admin_keys(client: TestClient, method: str, path: str) -> None:
    for key, status in REFUSED:
        error_of(client.request(method, path, headers=bearer(key)), status)
    answer = client.request(method, path, headers=bearer(ADMIN_KEY))
    assert answer.status_code == 200
    assert answer.json()["key_id"] == "operator"


def test_a_refused_inference_key_learns_nothing_of_what_it_named(client: TestClient) -> None:
    answers = {
        client.post(path, headers=bearer(INFERENCE_KEY)).content
        for path in ("/admin/v1/adapters/a/load", "/admin/v1/adapters/b/load", "/no/such/route")
    }
    assert len(answers) == 1


@pytest.mark.parametrize("path", ["/v1/models", "/v1/completions", "/tokenize", "/invocations"])
def test_inference_routes_know_the_caller_by_the_key(client: TestClient, path: str) -> None:
    for key, status in REFUSED[:4]:
        error_of(client.post(path, headers=bearer(key)), status)
    caller = client.post(path, headers=bearer(INFERENCE_KEY)).json()
    assert caller["key_id"] == "reader"
    assert caller["tenant"] == "acme"
    assert caller["adapters"] == ["acme-*"]
    assert not caller["is_admin"]
    assert client.post(path, headers=bearer(ADMIN_KEY)).json()["is_admin"]


def test_401_says_how_to_authenticate_and_an_expired_key_that_it_expired(
    client: TestClient,
) -> None:
    answer = client.get("/v1/models")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert error_of(answer, 401)["type"] == "AuthenticationError"
    expired = client.get("/v1/models", headers=bearer(EXPIRED_KEY))
    assert "expired" in error_of(expired, 401)["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": INFERENCE_KEY},
        {"Authorization": f"Basic {INFERENCE_KEY}"},
        {"Authorization": f"Bearer{INFERENCE_KEY}"},
        {"Authorization": f"Bearer {INFERENCE_KEY} {INFERENCE_KEY}"},
        {"Authorization": "Bearer"},
        {"X-Api-Key": INFERENCE_KEY},
        {"Cookie": f"Authorization=Bearer {INFERENCE_KEY}"},
        {"Authorization": "Bearer \xff\xfe".encode("latin-1")},
        [("Authorization", f"Bearer {INFERENCE_KEY}"), ("Authorization", f"Bearer {ADMIN_KEY}")],
    ],
)
def test_a_key_counts_only_as_one_bearer_header(client: TestClient, headers) -> None:
    error_of(client.get("/v1/models", headers=headers), 401)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(client: TestClient, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {INFERENCE_KEY}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "Authorization"])
def test_a_key_in_the_query_string_is_never_accepted(client: TestClient, name: str) -> None:
    error_of(client.get("/v1/models", params={name: ADMIN_KEY}), 401)
    error_of(client.get("/v1/models", params={name: f"Bearer {ADMIN_KEY}"}), 401)


@pytest.mark.parametrize("path", ["/health", "/ping", "/console", "/console/app.js"])
def test_open_routes_need_no_key_and_run_as_someone_who_may_nothing(
    client: TestClient, path: str
) -> None:
    for key in (None, WRONG_KEY, ADMIN_KEY):
        caller = client.get(path, headers=bearer(key)).json()
        assert (caller["is_admin"], caller["adapters"], caller["base"]) == (False, [], False)


def test_metrics_are_open_with_option_keys_and_for_admins_once_there_are_tenants(
    client: TestClient, keys_file
) -> None:
    one_key = SecurityConfig(api_keys=("secret",))
    assert TestClient(secure(apps.app(), one_key)).get("/metrics").status_code == 200
    error_of(client.get("/metrics"), 401)
    error_of(client.get("/metrics", headers=bearer(INFERENCE_KEY)), 403)
    assert client.get("/metrics", headers=bearer(ADMIN_KEY)).status_code == 200
    opened = SecurityConfig(keys_file=keys_file, open_metrics=True)
    assert TestClient(secure(apps.app(), opened)).get("/metrics").status_code == 200


def test_a_browsers_preflight_passes_for_inference_routes_alone(client: TestClient) -> None:
    preflight = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    assert client.options("/v1/completions", headers=preflight).json()["key_id"] == "(none)"
    error_of(client.options("/admin/v1/status", headers=preflight), 401)
    error_of(client.options("/v1/completions"), 401)


def test_a_revoked_key_is_refused_and_a_new_one_accepted(
    client: TestClient, keys_file, clock: apps.Clock
) -> None:
    assert client.get("/v1/models", headers=bearer(INFERENCE_KEY)).status_code == 200
    apps.write_keys(keys_file, [record(OTHER_KEY, "new")])
    clock.now += 1
    error_of(client.get("/v1/models", headers=bearer(INFERENCE_KEY)), 401)
    assert client.get("/v1/models", headers=bearer(OTHER_KEY)).json()["key_id"] == "new"


def test_a_keys_file_without_keys_closes_the_server(keys_file) -> None:
    apps.write_keys(keys_file, "")
    closed = TestClient(secure(apps.app(), SecurityConfig(keys_file=keys_file)))
    for key in (None, "", ADMIN_KEY):
        error_of(closed.get("/v1/models", headers=bearer(key)), 401)


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/realtime", None, 401),
        ("/v1/realtime", WRONG_KEY, 401),
        ("/v1/realtime", OTHER_KEY, 403),
        ("/admin/feed", INFERENCE_KEY, 403),
        ("/v1//realtime", INFERENCE_KEY, 400),
        (f"/v1/realtime?api_key={INFERENCE_KEY}", None, 401),
    ],
)
def test_websockets_are_guarded_alike(
    client: TestClient, keys_file, clock: apps.Clock, path: str, key: str | None, status: int
) -> None:
    apps.write_keys(keys_file, [*apps.standard_records(), record(OTHER_KEY, "no-base", base=False)])
    clock.now += 1
    with (
        pytest.raises(WebSocketDisconnect) as refusal,
        client.websocket_connect(path, headers=bearer(key)),
    ):
        pass
    assert refusal.value.status_code == status
    assert refusal.value.json()["error"]["code"] == status


def test_a_websocket_with_a_key_is_opened_for_its_holder(client: TestClient) -> None:
    with client.websocket_connect("/v1/realtime", headers=bearer(INFERENCE_KEY)) as websocket:
        assert websocket.receive_text() == "reader"
