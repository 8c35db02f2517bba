"""What the gateway and its replicas tell each other, by calls within the Ray cluster."""

from dataclasses import dataclass, field

from propulsion.errors import PropulsionError
from serving.security.principal import Principal

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True)
class ForwardedRequest:
    """A request that the gateway has let in.

    Attributes:
        method, path, query_string, headers, client: of the HTTP request, without its API key.
        body: whole.
        principal: who asks; replicas believe it.
        adapter: whose requests are to meet on a replica, see `routing_key`; None for the base.
        waited_seconds: since it came to the gateway.
        avoid: replicas that were lost under it.
    """

    method: str
    path: str
    query_string: bytes
    headers: Headers
    client: tuple[str, int] | None
    body: bytes = field(repr=False)
    principal: Principal
    adapter: str | None = None
    waited_seconds: float = 0.0
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AnswerHead:
    """How an answer begins.

    Attributes:
        status, headers: of the HTTP response.
        label: the adapter's metrics label on the replica; None where no model was looked up.
        reference: the version that answers; None for the base.
        was_resident: whether the replica held the adapter when the request came.
    """

    status: int
    headers: Headers
    label: str | None = None
    reference: str | None = None
    was_resident: bool | None = None


@dataclass(frozen=True)
class AnswerPart:
    """A part of an answer. The first one only says which replica has the request.

    Attributes:
        replica: its name.
        head: in the part in which the answer begins.
        body: bytes of the answer, maybe none.
        prompt_tokens, generated_tokens: used so far.
        engine_failed: the engine broke the answer off; the body tells the client.
        is_last: nothing follows.
    """

    replica: str
    head: AnswerHead | None = None
    body: bytes = b""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    engine_failed: bool = False
    is_last: bool = False


@dataclass(frozen=True)
class WholeAnswer:
    """An answer in one piece, of a call that every replica gets."""

    status: int
    headers: Headers
    body: bytes


class ReplicaLostError(PropulsionError):
    """A replica cannot answer: its engine has died, and no byte of the answer was sent."""
