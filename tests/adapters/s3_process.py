"""What runs in the S3 server's process."""

import logging
import threading
from collections.abc import Iterable
from typing import Any


class MotoServer:
    """moto behind a web server that can be stopped and started."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._requests: list[str] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._port = 0
        logging.getLogger("werkzeug").setLevel(logging.ERROR)

    def port(self) -> int:
        return self._port

    def requests(self) -> list[str]:
        return self._requests

    def start(self) -> None:
        from moto.moto_server.werkzeug_app import MotoRequestHandler
        from werkzeug.serving import make_server

        self._server = make_server(
            "127.0.0.1", self._port, self._call, threaded=True, request_handler=MotoRequestHandler
        )
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._thread
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _call(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        # S3 checks a condition and writes in one step, moto in two.
        with self._one_at_a_time:
            self._requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
            return [b"".join(self._app(environ, start_response))]
