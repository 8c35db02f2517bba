"""What the console's routes serve, and that they serve nothing else."""

import re
from typing import get_args

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from serving.admin.schemas import SortField
from serving.console.routes import ASSETS, CONTENT_SECURITY_POLICY, console_routes

FILES = sorted(path.relative_to(ASSETS).as_posix() for path in ASSETS.rglob("*") if path.is_file())
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=console_routes()), follow_redirects=False)


@pytest.mark.parametrize("file", FILES)
def test_every_asset_has_its_type_and_the_guarding_headers(client: TestClient, file: str) -> None:
    response = client.get(f"/console/{file}")
    assert response.status_code == 200
    assert response.content == (ASSETS / file).read_bytes()
    assert response.headers["content-type"] == TYPES["." + file.rpartition(".")[2]]
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    expected = "no-store" if file.endswith(".html") else "no-cache"
    assert response.headers["cache-control"] == expected


def test_policy_lets_the_page_use_its_own_server_only() -> None:
    assert "default-src 'self'" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY


def test_console_without_slash_leads_to_the_page_also_behind_a_prefix() -> None:
    client = TestClient(Starlette(routes=[Mount("/llm", routes=console_routes())]))
    response = client.get("/llm/console", follow_redirects=False)
    assert response.headers["location"] == "console/"
    page = client.get("/llm/console")
    assert page.url.path == "/llm/console/"
    assert "<title>Propulsion</title>" in page.text


@pytest.mark.parametrize(
    "path",
    [
        "/console/routes.py",
        "/console/../routes.py",
        "/console/..%2froutes.py",
        "/console/%2e%2e/routes.py",
        "/console/..%5croutes.py",
        "/console//etc/passwd",
        "/console/%2fetc%2fpasswd",
        "/console/core",
        "/console/core/",
        "/console/nothing.js",
        "/console/app.js%00",
    ],
)
def test_all_else_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_writing_is_not_allowed(client: TestClient) -> None:
    assert client.post("/console/app.js").status_code == 405
    assert client.put("/console/index.html").status_code == 405


def test_unchanged_assets_are_not_sent_again(client: TestClient) -> None:
    etag = client.get("/console/app.js").headers["etag"]
    assert client.get("/console/app.js", headers={"If-None-Match": etag}).status_code == 304


def test_page_names_every_module_so_that_none_waits_for_another() -> None:
    page = (ASSETS / "index.html").read_text()
    named = re.findall(r'(?:modulepreload" href|module" src)="([^"]+)"', page)
    assert sorted(named) == [file for file in FILES if file.endswith(".js")]


def test_columns_are_those_that_the_admin_api_sorts_by() -> None:
    keys = re.findall(r'{ key: "(\w+)"', (ASSETS / "adapters" / "table.js").read_text())
    assert sorted(keys) == sorted(get_args(SortField))


def test_assets_hold_no_markup_sinks_and_no_foreign_address() -> None:
    for file in FILES:
        text = (ASSETS / file).read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn", text), file
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|srcdoc", text), file
