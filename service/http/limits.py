"""Limits on the size of requests and on the time that a client may take."""

import re
from dataclasses import dataclass, field

from .route_rules import rule_of

MAX_FRAMING_BYTES = 64 * 2**10
"""Bytes that a body may take on the wire in addition to `FRAMING_RATIO` times its length.

Chunk sizes, chunk extensions and trailers use these bytes.
"""

SHOPS = "/shops/"
"""Beginning of the paths of all shops of a server that serves several; the name of the shop follows."""

SHOP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names of shops, which are parts of addresses."""

FRAMING_RATIO = 8
"""Bytes allowed on the wire per byte of the body. A chunk with one byte takes six."""


@dataclass(frozen=True)
class BodyLimits:
    """Maximum size of a request body in bytes, by kind of body."""

    body: int = 2**20
    """Maximum size of a JSON body, which is read completely before it is parsed."""
    upload: int = 12 * 2**20
    """Maximum size of a multipart body, which holds a picture and a small JSON document."""
    streaming: int = 2**30
    """Maximum size of a body that a streaming route of `service/http/route_rules.py` reads in pieces."""
    prefix: str = ""
    """Prefix of the paths behind a reverse proxy; see `service/middleware/root_path.py`."""
    shops: bool = False
    """Whether the paths name a shop (`service/shops.py`)."""

    def longest(self, method: str, path: str, media_type: str) -> int:
        """Return the maximum size of the body of a request, in bytes."""
        if rule_of(method, self.route_path(path)).streaming:
            return self.streaming
        return self.upload if media_type.lower().startswith("multipart/form-data") else self.body

    def route_path(self, path: str) -> str:
        """Return a path of a request without the prefix and the shop, as the table of routes has it."""
        path = without_prefix(path, self.prefix)
        return without_prefix(path, SHOPS + shop_of(path)) if self.shops else path


def without_prefix(path: str, prefix: str) -> str:
    """Return a path without the prefix of a reverse proxy; a path that lacks the prefix is unchanged."""
    if not prefix or not f"{path}/".startswith(f"{prefix}/"):
        return path
    return path[len(prefix) :] or "/"


def shop_of(path: str, prefix: str = "") -> str:
    """Return the name of the shop in a path below the prefix of a reverse proxy, or an empty string."""
    path = without_prefix(path, prefix)
    return path[len(SHOPS) :].partition("/")[0] if path.startswith(SHOPS) else ""


@dataclass(frozen=True)
class Deadlines:
    """Time limits for clients, in seconds.

    A limit takes effect at most two sweeps late. A client slower than `rate` over a `window` is disconnected, so a body
    takes at most its length / `rate` + `window`.
    """

    head: float = 4.0
    """Maximum time from the first byte of a request to the end of its header fields.

    A new connection has the same time for the first byte of its first request.
    """
    idle: float = 5.0
    """Maximum time between a response and the next request on a keep-alive connection."""
    window: float = 4.0
    """Period over which the transfer rate of a request body or a response is measured."""
    rate: int = 16 * 2**10
    """Minimum rate in bytes per second at which a client must send a body or read a response."""
    linger: float = 2.0
    """Time that a client has to close the connection after its last response; what it still sends is discarded."""
    last_call: float = 1.0
    """Time that a keep-alive connection has to start one more request when the server is about to stop."""
    grace: int = 8
    """Time that the server has to answer all accepted requests before it stops."""
    sweep: float = 0.25
    """Time between two sweeps over the connections."""


@dataclass(frozen=True)
class Limits:
    """Limits on the size and number of requests and on the number of connections."""

    bodies: BodyLimits = field(default_factory=BodyLimits)
    """Maximum sizes of a request body."""
    head: int = 32 * 2**10
    """Maximum size of the request line and the header fields, in bytes."""
    target: int = 8 * 2**10
    """Maximum size of the request target, in bytes. RFC 9112, section 3, recommends at least 8000."""
    fields: int = 100
    """Maximum number of header fields in a request."""
    pipeline: int = 64
    """Maximum number of requests on a connection that wait for the response to an earlier request."""
    connections: int = 4096
    """Maximum number of open connections of all workers; each has at most half of the files that it may open.

    Beyond the limit, the oldest incomplete connections are closed.
    """
