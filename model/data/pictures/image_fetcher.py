"""Fetcher of pictures by URL that connects only to public servers, so that a URL cannot reach the internal network.

The fetcher resolves the host name, checks every address of the host, and connects to one of the checked addresses. The
name is not resolved a second time in between, and every redirect is checked in the same way. The fetcher uses httpcore,
because httpcore adds no proxies, cookies, credentials or content decoding by itself. The service opens one connection
per request. Downloads in bulk keep connections open; each serves only the host for which it was checked.
"""

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import httpcore
import httpx

from model import __version__
from model.errors import FetchError, ForbiddenUrlError

from .fetch_budget import BudgetedNetwork, CostlyResponseError, FetchBudget
from .images import MAX_UNTRUSTED_BYTES
from .public_addresses import IpAddress, is_public

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""Function from a host name to its addresses; it raises `OSError` if there are none."""

ALLOWED_MEDIA_TYPES = (
    "image/jpeg",
    "image/jpg",  # not registered, but common
    "image/png",
    "image/webp",
    "application/octet-stream",
    "binary/octet-stream",  # the default of Amazon S3
)
"""Accepted content types.

The picture format is detected by content when it is decoded. This check only avoids reading pages and documents.
"""

REDIRECT_STATUSES = (301, 302, 303, 307, 308)

MAX_URL_CHARACTERS = 2_048

MAX_TRIED_ADDRESSES = 4
"""Maximum number of addresses of a host that are tried, one after another."""

CONNECT_TIMEOUT_S = 3.0
"""Timeout in seconds of a connection to one address."""

TRANSIENT_STATUSES = (408, 425, 429, 500, 502, 503, 504)
"""Statuses after which a later try may succeed (RFC 9110, section 15; RFC 6585, section 4; RFC 8470)."""

_HOST_NAME = re.compile(r"(?=.{1,254}\Z)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")

_REQUEST_HEADERS = [
    ("Accept", "image/webp, image/png, image/jpeg"),
    ("Accept-Encoding", "identity"),
    ("User-Agent", f"rcml/{__version__}"),
]


@dataclass(frozen=True)
class FetchLimits:
    """Limits of one fetch, and the maximum number of concurrent fetches.

    `seconds` limits the whole fetch: the wait for a free slot, DNS lookups, connections, redirects and the body.
    `ports` contains the four usual ports of web servers, because services on other ports rarely serve pictures.
    """

    max_bytes: int = MAX_UNTRUSTED_BYTES
    seconds: float = 10.0
    redirects: int = 3
    concurrency: int = 16
    ports: Collection[int] = (80, 443, 8080, 8443)


@dataclass(frozen=True)
class _Connection:
    """Connection to an origin (scheme, host and port), with the budget of its current response."""

    origin: tuple[bytes, bytes, int]
    http: httpcore.AsyncHTTPConnection
    budget: FetchBudget


class PictureFetcher:
    """Fetcher of pictures by URL: `async with PictureFetcher() as fetcher: await fetcher.fetch(url)`."""

    def __init__(
        self,
        limits: FetchLimits | None = None,
        permits: Callable[[IpAddress], bool] = is_public,
        resolve: Resolve | None = None,
        wire: httpcore.AsyncNetworkBackend | None = None,
        hosts: Collection[str] = (),
        keep_alive: bool = False,
    ) -> None:
        """Create a fetcher that connects only to addresses for which `permits` is true, and to `hosts`.

        Each of `hosts` is a name or address with or without a port ("pictures.intranet", "127.0.0.1:8000") to which the
        user allows any connection. By default, `resolve` and `wire` use the system's resolver and network. With
        `keep_alive`, connections are used for several requests.
        """
        self._hosts = frozenset(host.lower() for host in hosts)
        self._keep_alive = keep_alive
        self._idle: list[_Connection] = []
        self._limits = limits or FetchLimits()
        self._turns = asyncio.Semaphore(self._limits.concurrency)
        # A lookup cannot be cancelled. In a shared pool, slow lookups would block other work.
        self._threads = ThreadPoolExecutor(self._limits.concurrency, "resolver")
        self._wire = _CheckedWire(
            resolve or self._look_up,
            permits,
            wire or httpcore.AnyIOBackend(),
            self._limits.seconds,
            self._hosts,
        )
        self._tls = httpx.create_ssl_context(trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connection in self._idle:
            await connection.http.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str) -> bytes:
        """Fetch the picture at `url`, and return its bytes exactly as the server sent them.

        Raises:
            ForbiddenUrlError: the URL or a redirect does not use HTTP(S) on a permitted port of a public server.
            FetchError: the server does not respond in time, or the response is too large, compressed or not a picture.
        """
        place = self._parse(url)
        host = _host(place)
        try:
            async with asyncio.timeout(self._limits.seconds), self._turns:
                for _ in range(self._limits.redirects + 1):
                    answer = await self._ask(place)
                    if isinstance(answer, bytes):
                        return answer
                    place = self._parse(answer)
        except CostlyResponseError as error:
            raise _failed(host, str(error)) from None
        except TimeoutError:
            raise _failed(host, f"it took longer than {self._limits.seconds:g} s", True) from None
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            raise _failed(
                host, "its server cannot be reached or has an invalid TLS certificate", True
            ) from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError):
            raise _failed(
                host, "its server closed the connection or sent an invalid HTTP response", True
            ) from None
        raise _failed(host, f"it redirects more than {self._limits.redirects} times")

    def _parse(self, url: str) -> httpx.URL:
        """Parse `url` and reject it if it is not permitted. `_CheckedWire` checks the addresses of its host later."""
        if len(url) > MAX_URL_CHARACTERS:
            raise _forbidden("an unknown host", f"its URL is longer than {MAX_URL_CHARACTERS:,} characters")
        try:
            place = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):  # a lone surrogate raises ValueError
            raise _forbidden("an unknown host", "its URL is malformed") from None
        host = _host(place)
        if place.scheme not in ("http", "https"):
            raise _forbidden(host or "an unknown host", "the scheme of its URL is neither http nor https")
        if _address(host) is None and not _HOST_NAME.fullmatch(host):
            raise _forbidden("an unknown host", "its URL has no valid host")
        if place.userinfo:
            raise _forbidden(host, "its URL contains a user name or password")
        if _port(place) not in self._limits.ports and not _named(host, _port(place), self._hosts):
            raise _forbidden(
                host, f"the port of its URL is not one of {', '.join(map(str, self._limits.ports))}"
            )
        return place

    async def _ask(self, place: httpx.URL) -> bytes | str:
        """Send a request to the URL `place`; return the picture, or the target URL of a redirect."""
        origin = (place.raw_scheme, place.raw_host, _port(place))
        while True:
            kept = next((number for number, idle in enumerate(self._idle) if idle.origin == origin), None)
            connection = self._connection(origin) if kept is None else self._idle.pop(kept)
            try:
                answer = await self._exchange(connection, place)
            except (httpcore.NetworkError, httpcore.ProtocolError):
                await connection.http.aclose()
                if kept is None:
                    raise
                continue  # the server may have closed the idle connection; the next one, or a new one, is tried
            except BaseException:
                await connection.http.aclose()
                raise
            if self._keep_alive and connection.http.is_idle():
                self._idle.append(connection)
                if len(self._idle) > self._limits.concurrency:
                    await self._idle.pop(0).http.aclose()
            else:
                await connection.http.aclose()
            return answer

    def _connection(self, origin: tuple[bytes, bytes, int]) -> _Connection:
        budget = FetchBudget(self._limits.max_bytes)
        network = BudgetedNetwork(self._wire, budget)
        http = httpcore.AsyncHTTPConnection(
            httpcore.Origin(*origin), ssl_context=self._tls, network_backend=network
        )
        return _Connection(origin, http, budget)

    async def _exchange(self, connection: _Connection, place: httpx.URL) -> bytes | str:
        target = httpcore.URL(
            scheme=place.raw_scheme, host=place.raw_host, port=place.port, target=place.raw_path
        )
        headers = [
            ("Host", place.netloc.decode("ascii")),
            *_REQUEST_HEADERS,
            ("Connection", "keep-alive" if self._keep_alive else "close"),
        ]
        budget = connection.budget
        budget.begin()
        async with connection.http.stream("GET", target, headers=headers) as response:
            said = httpx.Headers(response.headers)
            if response.status in REDIRECT_STATUSES and "location" in said:
                return _redirected(place, said["location"])
            self._check_head(_host(place), response.status, said)
            budget.plain = "transfer-encoding" not in said
            content = bytearray()
            async for part in response.aiter_stream():
                content += part
                if len(content) > self._limits.max_bytes:
                    raise self._too_large(_host(place))
                budget.receive(len(content))
            return bytes(content)

    def _check_head(self, host: str, status: int, said: httpx.Headers) -> None:
        if status != 200:
            transient = status in TRANSIENT_STATUSES
            wait = _wait_s(said.get("retry-after", "")) if transient else None
            raise _failed(host, f"its server responded with status {status}", transient, wait)
        if said.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise _failed(host, "its server compressed the response, which the request did not allow")
        kind = said.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        if kind not in ALLOWED_MEDIA_TYPES:
            raise _failed(host, f"its content type is {kind[:60]!r}, which is not JPEG, PNG or WebP")
        # The declared length may be false, so `_ask` also counts the bytes that it receives.
        if int(said.get("content-length", "0")) > self._limits.max_bytes:
            raise self._too_large(host)

    def _too_large(self, host: str) -> FetchError:
        return _failed(host, f"it is larger than {self._limits.max_bytes:,} bytes")

    async def _look_up(self, host: str) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
        return [str(place[0]) for *_, place in found]


class _CheckedWire(httpcore.AsyncNetworkBackend):
    """Network backend that connects to a host only if all addresses of the host are permitted."""

    def __init__(
        self,
        resolve: Resolve,
        permits: Callable[[IpAddress], bool],
        wire: httpcore.AsyncNetworkBackend,
        seconds: float,
        hosts: Collection[str],
    ) -> None:
        self._hosts = hosts
        self._resolve = resolve
        self._permits = permits
        self._wire = wire
        self._seconds = min(seconds, CONNECT_TIMEOUT_S)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve `host` and connect to one of its addresses.

        Raises:
            ForbiddenUrlError: an address is not permitted, even if the host also has public addresses.
        """
        addresses = await self._addresses(host)
        public = all(address is not None and self._permits(address) for address in addresses)
        if not public and not _named(host, port, self._hosts):
            raise _forbidden(host, "its host has an address that is not public")
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses[:MAX_TRIED_ADDRESSES]:
            if address is None:
                continue
            try:
                return await self._wire.connect_tcp(
                    str(address), port, self._seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def _addresses(self, host: str) -> list[IpAddress | None]:
        """Return the addresses of `host` in the order of the lookup, with None for invalid ones."""
        if (address := _address(host)) is not None:
            return [address]
        try:
            answer = await self._resolve(host)
        except OSError as error:
            again = error.errno == socket.EAI_AGAIN
            raise _failed(host, "its host name cannot be resolved", again) from None
        return [_address(text) for text in answer]


def _host(place: httpx.URL) -> str:
    return place.raw_host.decode("ascii")


def _port(place: httpx.URL) -> int:
    return place.port if place.port is not None else 443 if place.scheme == "https" else 80


def _address(text: str) -> IpAddress | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _redirected(place: httpx.URL, location: str) -> str:
    try:
        return str(place.join(location).copy_with(fragment=None))
    except (httpx.InvalidURL, ValueError):
        raise _failed(_host(place), "it redirects to a malformed URL") from None


def _named(host: str, port: int, hosts: Collection[str]) -> bool:
    return host in hosts or f"{host}:{port}" in hosts


def _wait_s(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After field: a number or a date (RFC 9110, section 10.2.3); None if invalid."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _forbidden(host: str, reason: str) -> ForbiddenUrlError:
    return ForbiddenUrlError(
        f"The picture at {host} was not fetched: {reason}. Send an HTTP or HTTPS URL on a public host, "
        "or send the picture itself.",
        reason,
    )


def _failed(
    host: str, reason: str, transient: bool = False, retry_after_s: float | None = None
) -> FetchError:
    return FetchError(
        f"The picture at {host} could not be fetched: {reason}. Check the URL, or send the picture itself.",
        reason,
        transient,
        retry_after_s,
    )
