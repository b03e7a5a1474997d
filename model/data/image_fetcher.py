"""Pictures given by URL, fetched with care: whoever names the URL shall reach nothing that they could not themselves.

A name is resolved here, every address that it has is checked, and what is connected to is one of those addresses: no
second look-up lies between, and each redirect begins anew. Beneath is httpcore, one connection a request, so there are
no proxies, cookies, credentials or decoders to be switched off. Used by the service and by whatever prepares items.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import httpcore
import httpx

from model import __version__
from model.errors import FetchError, ForbiddenUrlError

from .images import MAX_UNTRUSTED_BYTES
from .public_addresses import IpAddress, is_public

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""A host's name -> its addresses; raises `OSError` where it has none."""

ALLOWED_MEDIA_TYPES = (
    "image/jpeg",
    "image/jpg",  # a common mistake
    "image/png",
    "image/webp",
    "application/octet-stream",
    "binary/octet-stream",  # what a widespread store of objects says of all
)
"""What an answer may say it is. It is decoded by content; this only keeps pages and documents from being read."""

REDIRECT_STATUSES = (301, 302, 303, 307, 308)

MAX_URL_CHARACTERS = 2_048

MAX_TRIED_ADDRESSES = 4
"""Addresses of a host that are tried one after another."""

CONNECT_TIMEOUT_S = 3.0
"""For one of them."""

_HOST_NAME = re.compile(r"(?=.{1,254}\Z)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")

_REQUEST_HEADERS = [
    ("Accept", "image/webp, image/png, image/jpeg"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
    ("User-Agent", f"rcml/{__version__}"),
]


@dataclass(frozen=True)
class FetchLimits:
    """Limits of one fetch, and of the number of fetches at a time.

    `seconds` holds for all of it: waiting for a turn, look-ups, connections, redirects and the last byte. `ports` are
    the web's usual four: behind others mostly lies something else than a server of pictures.
    """

    max_bytes: int = MAX_UNTRUSTED_BYTES
    seconds: float = 10.0
    redirects: int = 3
    concurrency: int = 16
    ports: Collection[int] = (80, 443, 8080, 8443)


class PictureFetcher:
    """A fetcher of pictures by URL: `async with PictureFetcher() as fetcher: await fetcher.fetch(url)`."""

    def __init__(
        self,
        limits: FetchLimits | None = None,
        permits: Callable[[IpAddress], bool] = is_public,
        resolve: Resolve | None = None,
        wire: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """Make a fetcher that connects to permitted addresses; `resolve` and `wire` default to the system's own."""
        self._limits = limits or FetchLimits()
        self._turns = asyncio.Semaphore(self._limits.concurrency)
        # Threads of its own: a slow look-up cannot be stopped, and shall keep nobody else waiting.
        self._threads = ThreadPoolExecutor(self._limits.concurrency, "resolver")
        self._wire = _CheckedWire(
            resolve or self._look_up, permits, wire or httpcore.AnyIOBackend(), self._limits.seconds
        )
        self._tls = httpx.create_ssl_context(trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str) -> bytes:
        """Fetch the bytes of the picture at `url`, as its server gave them, not yet decoded.

        Raises:
            ForbiddenUrlError: it, or where it redirects to, is not http(s) on a usual port of a public server.
            FetchError: there is no answer in time, or one that is no picture, too large, or encoded.
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
        except TimeoutError:
            raise _failed(host, f"it took longer than {self._limits.seconds:g} s") from None
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            raise _failed(host, "its server cannot be connected to, or proves to be another") from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError):
            raise _failed(host, "its server broke off, or does not speak HTTP") from None
        raise _failed(host, f"it redirects more than {self._limits.redirects} times")

    def _parse(self, url: str) -> httpx.URL:
        """`url`, if it may be asked at all; what address its host has is checked when it is connected to."""
        if len(url) > MAX_URL_CHARACTERS:
            raise _forbidden("an unnamed host", f"its URL is longer than {MAX_URL_CHARACTERS:,} characters")
        try:
            place = httpx.URL(url)
        except (httpx.InvalidURL, ValueError):  # a lone surrogate is a ValueError
            raise _forbidden("an unnamed host", "its URL is malformed") from None
        host = _host(place)
        if place.scheme not in ("http", "https"):
            raise _forbidden(host or "an unnamed host", "its URL is neither http nor https")
        if _address(host) is None and not _HOST_NAME.fullmatch(host):
            raise _forbidden("an unnamed host", "its URL names no host")
        if place.userinfo:
            raise _forbidden(host, "its URL holds a user name or password")
        if _port(place) not in self._limits.ports:
            raise _forbidden(
                host, f"its URL names another port than {', '.join(map(str, self._limits.ports))}"
            )
        return place

    async def _ask(self, place: httpx.URL) -> bytes | str:
        """Request `place`; return the picture, or the URL that it redirects to."""
        origin = httpcore.Origin(place.raw_scheme, place.raw_host, _port(place))
        target = httpcore.URL(
            scheme=place.raw_scheme, host=place.raw_host, port=place.port, target=place.raw_path
        )
        headers = [("Host", place.netloc.decode("ascii")), *_REQUEST_HEADERS]
        async with (
            httpcore.AsyncHTTPConnection(
                origin, ssl_context=self._tls, network_backend=self._wire
            ) as connection,
            connection.stream("GET", target, headers=headers) as response,
        ):
            said = httpx.Headers(response.headers)
            if response.status in REDIRECT_STATUSES and "location" in said:
                return _redirected(place, said["location"])
            self._check_head(_host(place), response.status, said)
            content = bytearray()
            async for part in response.aiter_stream():
                content += part
                if len(content) > self._limits.max_bytes:
                    raise self._too_large(_host(place))
            return bytes(content)

    def _check_head(self, host: str, status: int, said: httpx.Headers) -> None:
        if status != 200:
            raise _failed(host, f"its server answered {status}")
        if said.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise _failed(host, "its server compresses what it was asked to send as it is")
        kind = said.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
        if kind not in ALLOWED_MEDIA_TYPES:
            raise _failed(host, f"its server says that it is {kind[:60]!r}, which is no JPEG, PNG or WebP")
        # Whatever it says, what comes is counted; to believe it spares the reading.
        if int(said.get("content-length", "0")) > self._limits.max_bytes:
            raise self._too_large(host)

    def _too_large(self, host: str) -> FetchError:
        return _failed(host, f"it has more than {self._limits.max_bytes:,} bytes")

    async def _look_up(self, host: str) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
        return [str(place[0]) for *_, place in found]


class _CheckedWire(httpcore.AsyncNetworkBackend):
    """Resolves a host, and connects to an address of it if every one of them is permitted."""

    def __init__(
        self,
        resolve: Resolve,
        permits: Callable[[IpAddress], bool],
        wire: httpcore.AsyncNetworkBackend,
        seconds: float,
    ) -> None:
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
        """Connect to one of the addresses of `host`, given in figures.

        Raises:
            ForbiddenUrlError: one of them is not permitted: a name that has both kinds is out for mischief.
        """
        addresses = await self._addresses(host)
        if not all(address is not None and self._permits(address) for address in addresses):
            raise _forbidden(host, "it does not lie on a public server")
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses[:MAX_TRIED_ADDRESSES]:
            try:
                return await self._wire.connect_tcp(
                    str(address), port, self._seconds, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def _addresses(self, host: str) -> list[IpAddress | None]:
        """Those of `host`, in the order of the answer; None stands for what is no address."""
        if (address := _address(host)) is not None:
            return [address]
        try:
            answer = await self._resolve(host)
        except OSError:
            raise _failed(host, "no such host is known") from None
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
        raise _failed(_host(place), "it redirects to what is no URL") from None


def _forbidden(host: str, reason: str) -> ForbiddenUrlError:
    return ForbiddenUrlError(
        f"The picture at {host} is not fetched: {reason}. Give an http or https URL of a public server, "
        "or send the picture itself."
    )


def _failed(host: str, reason: str) -> FetchError:
    return FetchError(
        f"The picture at {host} could not be fetched: {reason}. Check the URL, or send the picture itself."
    )
