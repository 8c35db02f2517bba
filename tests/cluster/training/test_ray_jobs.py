"""What is told when Ray's head does not answer as it should."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster.training.ray_jobs import HeadUnreachableError, RayJobs
from tests.trainer.runs import free_port


@pytest.fixture
def head_that_wants_a_token() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b"Unauthorized: Missing authentication token")

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_head_that_wants_its_token_is_told_apart(head_that_wants_a_token: str) -> None:
    jobs = RayJobs(head_that_wants_a_token, "python")
    with pytest.raises(HeadUnreachableError, match=r"wants its token: set RAY_AUTH_MODE=token"):
        jobs.info("any")


def test_no_head_is_told_with_its_address() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(HeadUnreachableError, match=f"no Ray head answers at {address}"):
        RayJobs(address, "python").require_head()
