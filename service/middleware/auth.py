"""Access control: by API key on a server with keys, by Host and Origin on a server without keys.

This middleware runs before any code that reads a body or does work. `route_rules.py` defines the role that each route
requires. The name of a request's key is stored in `scope["rcml.key"]` for logs and metrics; the key itself is not
stored.

A server without keys listens on loopback, unless `--unguarded` is set. The threat is then a web page that is open in a
browser on the same machine. The page may use a hostname of its own that resolves to 127.0.0.1 (DNS rebinding), so this
middleware rejects every hostname that someone else could own. The page may also send requests that a browser sends
without a preflight, so this middleware rejects all requests from other sites except GET and HEAD, like Go's
CrossOriginProtection.
"""

from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.route_rules import SCOPE_CHARGE, SCOPE_KEY_NAME, Role, rule_of
from service.problems.errors import RateLimitError
from service.problems.field_messages import ECHO_LENGTH
from service.problems.kinds import (
    FOREIGN_SITE,
    KEY_TOO_WEAK,
    MISDIRECTED,
    NO_KEY,
    UNKNOWN_KEY,
)
from service.problems.rejections import Rejection
from service.problems.response import problem_response

from .api_keys import Key, Keys
from .rate_limit import RateLimit

SCOPE_DECISION = "rcml.decision"
"""Scope entry with the decision about a request: its rejection, or None."""


class Auth:
    """Pure ASGI middleware that rejects a request with 401, 403, 421 or 429, or passes it on."""

    def __init__(self, app: ASGIApp, guard: "Guard") -> None:
        self.app = app
        self.guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject the request, or pass it on to the application."""
        if scope["type"] == "http":
            rejection = self.guard.check(scope)
            if rejection is not None:
                path, headers = scope["path"], rejection.headers
                response = problem_response(rejection.kind, rejection.detail, path, headers=headers)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Guard:
    """Rules by which requests are rejected before anything is done for them."""

    def __init__(
        self,
        keys: Keys,
        rate_limit: RateLimit | None = None,
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
        shop: str = "",
    ) -> None:
        self.shop = shop
        self.keys = keys
        self.rate_limit = rate_limit
        self.hosts = frozenset(host.lower() for host in hosts)
        self.origins = frozenset(origins)

    def check(self, scope: Scope) -> Rejection | None:
        """Return why the request is rejected, or None if it may be answered.

        The decision is kept in the scope, so that a request is charged to the rate limit of its caller only once.
        """
        if SCOPE_DECISION not in scope:
            scope[SCOPE_DECISION] = self._check_key(scope) if self.keys else self._check_origin(scope)
        rejection: Rejection | None = scope[SCOPE_DECISION]
        return rejection

    def _check_key(self, scope: Scope) -> Rejection | None:
        access = rule_of(scope["method"], scope["path"]).access
        secret = sent_key(scope)
        key = self.keys.find(secret, self.shop) if secret is not None else None
        scope[SCOPE_KEY_NAME] = None if key is None else key.name
        if access is Role.OPEN:
            return None
        if key is None:
            if secret is None:
                return Rejection(NO_KEY, _NO_KEY, headers={"WWW-Authenticate": "Bearer"})
            challenge = 'Bearer error="invalid_token"'
            return Rejection(UNKNOWN_KEY, _UNKNOWN_KEY, headers={"WWW-Authenticate": challenge})
        if not key.reaches(access):
            return _too_weak(scope, key)
        return self._check_rate(scope, key.name)

    def _check_origin(self, scope: Scope) -> Rejection | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._is_ours(host):
            detail = (
                f"This server does not accept requests for the host {host[:ECHO_LENGTH]!r}. Use the server's IP "
                "address, or allow the host with --allowed-hosts."
            )
            return Rejection(MISDIRECTED, detail)
        if scope["method"] not in ("GET", "HEAD") and self._is_foreign(headers, host):
            return Rejection(FOREIGN_SITE, _FOREIGN_SITE)
        if rule_of(scope["method"], scope["path"]).access is Role.OPEN:
            return None
        return self._check_rate(scope, scope["client"][0] if scope["client"] else "")

    def _check_rate(self, scope: Scope, caller: str) -> Rejection | None:
        limit = self.rate_limit
        if limit is None:
            return None
        scope[SCOPE_CHARGE] = partial(limit.charge, caller)
        if not (wait := limit.wait(caller)):
            return None
        error = RateLimitError(1, limit.rate, limit.burst, wait)
        return Rejection(error.kind, str(error), headers=error.headers)

    def _is_ours(self, host: str) -> bool:
        """Return whether the host is one that an attacker cannot own.

        Such a host is an IP address, a name without a dot, a name below `.localhost`, or an allowed host.
        """
        name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
        if "." not in name and not name.startswith("["):
            return True
        return name in self.hosts or name.endswith(".localhost") or _is_address(name.strip("[]"))

    def _is_foreign(self, headers: dict[bytes, bytes], host: str) -> bool:
        """Return whether the headers show that a page from another site made a browser send the request.

        A site in `origins` does not count as another site. Only browsers send these headers; other programs do not.
        """
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin in self.origins:
            return False
        if site := headers.get(b"sec-fetch-site"):
            return site not in (b"same-origin", b"none")
        return origin != "" and _authority(origin) != host


def pass_decision(decided: Scope, scope: Scope) -> None:
    """Copy the decision about a request to another scope of the same request."""
    scope.update({name: decided[name] for name in _DECIDED if name in decided})


_DECIDED = (SCOPE_DECISION, SCOPE_KEY_NAME, SCOPE_CHARGE)


def sent_key(scope: Scope) -> bytes | None:
    """Return the key sent as `Authorization: Bearer KEY` or `X-API-Key: KEY`, or None if there is no such header."""
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value.strip())
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return bytes(value[7:].strip())
    return None


_HOW = "Send the key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`."
_NO_KEY = f"This route requires an API key, and none was sent. {_HOW}"
_UNKNOWN_KEY = (
    f"The API key that was sent is unknown to this server. Get a valid key from its operator. {_HOW}"
)
_FOREIGN_SITE = (
    "A page from another site made a browser send this request, and a server without API keys rejects such requests. "
    "To allow that site, name it with --cors-origins."
)


def _too_weak(scope: Scope, key: Key) -> Rejection:
    asked = f"{scope['method']} {scope['path'][:ECHO_LENGTH]}"
    detail = f"{asked} requires an admin key, but the key '{key.name}' is read-only. Use an admin key."
    return Rejection(KEY_TOO_WEAK, detail)


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
