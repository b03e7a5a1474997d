"""Limits on what a client may send and how long it may take."""

from dataclasses import dataclass, field

from .route_rules import rule_of

MAX_FRAMING_BYTES = 64 * 2**10
"""Bytes of chunk sizes, extensions and trailers, beyond `FRAMING_RATIO` for each byte of the body."""

FRAMING_RATIO = 8
"""Bytes on the wire for a byte of the body: chunks of one byte take six."""


@dataclass(frozen=True)
class BodyLimits:
    """Bytes that the body of a request may have."""

    body: int = 2**20
    """Of JSON, which is read as a whole before anything is known of it."""
    upload: int = 12 * 2**20
    """Of a multipart body: a picture, and little JSON beside it."""
    streaming: int = 2**30
    """Of one that a streaming route of `service/http/route_rules.py` reads piece by piece."""

    def longest(self, method: str, path: str, media_type: str) -> int:
        """Return the bytes that the body of a request may have."""
        if rule_of(method, path).streaming:
            return self.streaming
        return self.upload if media_type.lower().startswith("multipart/form-data") else self.body


@dataclass(frozen=True)
class Deadlines:
    """How long a client may take, in seconds; each is kept to within two sweeps.

    A client slower than `rate` over a `window` is cut, so a body takes at most its length / `rate` + `window`.
    """

    head: float = 4.0
    """From the first byte of a request, or from the connection's start, to the end of its header fields."""
    idle: float = 5.0
    """Between an answer and the next request on a connection that is kept alive."""
    window: float = 4.0
    """Over which the progress of a body and of the reading of an answer is measured."""
    rate: int = 16 * 2**10
    """Bytes a second that a client must send of its body, or read of its answer."""
    linger: float = 2.0
    """For a refused client to notice, while what it still sends is thrown away."""
    last_call: float = 1.0
    """For a next request on a connection that is kept alive, when the server is about to stop."""
    grace: int = 8
    """For everything that was accepted to be answered, when the server is about to stop."""
    sweep: float = 0.25
    """Between two looks at the connections."""


@dataclass(frozen=True)
class Limits:
    """How much a client may send."""

    bodies: BodyLimits = field(default_factory=BodyLimits)
    """Bytes of a request's body."""
    head: int = 32 * 2**10
    """Bytes of a request's line and header fields."""
    target: int = 8 * 2**10
    """Bytes of a request's target; RFC 9112, section 3, wants 8000 at least."""
    fields: int = 100
    """Header fields of a request."""
    pipeline: int = 64
    """Requests of a connection that wait for an earlier one."""
    connections: int = 4096
    """Connections at once, or half the files the process may open; beyond, the longest unfinished make room."""
