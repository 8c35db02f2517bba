"""A real S3 server (moto) on loopback that can go away and come back with what it held."""

from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from typing import Any

import boto3

from tests.adapters.s3_process import MotoServer

ACCESS_KEY = "access-key-of-the-tests"
SECRET_KEY = "secret-key-of-the-tests"


class _Manager(BaseManager):
    pass


_Manager.register("MotoServer", MotoServer)


class S3Server:
    """Serves from its start; every object is kept by its process, whether it serves or not.

    A process of its own: vLLM looks at all that every module of its process holds, and moto's web
    framework holds things that may be looked at during a request alone.
    """

    def __init__(self) -> None:
        self._manager = _Manager(ctx=get_context("spawn"))
        self._manager.start()
        self._server: Any = self._manager.MotoServer()  # type: ignore[attr-defined]
        self.start()

    def close(self) -> None:
        """End the process."""
        self._manager.shutdown()

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://127.0.0.1:{self._server.port()}"

    @property
    def requests(self) -> list[str]:
        """Method and path of every request so far."""
        requests: list[str] = self._server.requests()
        return requests

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Serve, on the same port as before."""
        self._server.start()

    def stop(self) -> None:
        """Refuse connections."""
        self._server.stop()

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        self.client().create_bucket(Bucket=name)

    def client(self) -> Any:
        """A plain client."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
