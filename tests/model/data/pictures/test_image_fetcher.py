"""Fetching of pictures by URL: accepted and rejected responses, and no connection to a non-public address."""

import asyncio
import gzip
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpcore
import pytest

from model.data.pictures.image_fetcher import FetchLimits, PictureFetcher
from model.errors import FetchError, ForbiddenUrlError

PUBLIC = "93.184.215.14"
"""Address of the test servers, as the fetcher sees it."""

PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 40

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"

Answer = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]

SPECIAL_IPV4 = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1",
    "127.0.0.2", "127.255.255.254", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1",
    "172.31.255.254", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "192.168.255.254", "198.18.0.1", "198.19.255.254", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16",
]  # fmt: skip

SPECIAL_IPV6 = [
    "::", "::1", "::127.0.0.1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1",
    "::ffff:169.254.169.254", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b::8.8.8.8", "64:ff9b:1::127.0.0.1",
    "64:ff9b:1:7f00:0:100::", "100::1", "2001::1", "2001:0:7f00:1::", "2001:2::1", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:808:808::",
    "3fff::1", "4000::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254", "fe80::1",
    "fe80::1%eth0", "fe80::1%25eth0", "2606:4700:4700::1111%251", "febf::1", "fec0::1", "feff::1",
    "ff01::1", "ff02::1", "ff0e::1", "2606:4700:0:0:0:5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1",
    "0:0:0:0:0:0:0:1", "0000::0001",
]  # fmt: skip

SPELLED = [
    "2130706433", "0x7f000001", "0X7F000001", "017700000001", "127.1", "127.0.1", "0x7f.1",
    "0x7f.0x0.0x0.0x1", "0177.1", "0177.0.0.1", "0177.0.0.01", "127.000.000.001", "127.0.0.1.", "127.1.",
    "0", "0x0", "0.0", "00000000", "2852039166", "0xa9fea9fe", "0xa9.0xfe.0xa9.0xfe", "0251.0376.0251.0376",
    "169.254.43518", "3232235521", "192.168.1", "127。0。0。1", "127.0.0.1", "127｡0｡0｡1",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
    "①②⑦.⓪.⓪.①", "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "localhost", "LOCALHOST", "localhost.", "\uff4cocalhost",
    "sub.localhost", "127.0.0.1..", "inner.example", "metadata.google.internal", "-127.0.0.1", "a..b", "..",
]  # fmt: skip

TRICKS = (
    "http://pictures.example@127.0.0.1:{port}/",
    "http://pictures.example:{port}@127.0.0.1:{port}/",
    "http://pictures.example:pass@127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@pictures.example/",
    "http://127.0.0.1:{port}?@pictures.example/",
    "http://127.0.0.1:{port}\\@pictures.example/",
    "http://pictures.example\\@127.0.0.1:{port}/",
    "http://pictures.example#@127.0.0.1:1/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http:/\\127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\t/",
    "http://127.0.0.1\r\n:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://[::1/",
    "ftp://127.0.0.1:{port}/",
    "file:///etc/hostname",
    "gopher://127.0.0.1:{port}/",
    "data:image/png;base64,AAAA",
    "unix:///run/socket",
    "javascript:alert(1)",
    "127.0.0.1:{port}",
    "",
    "http://",
    "http://\ud800/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:0/",
)


def forms(port: int) -> list[str]:
    """Return URLs that lead, or appear to lead, to non-public addresses."""
    hosts = [*SPECIAL_IPV4, *(f"[{address}]" for address in SPECIAL_IPV6), *SPELLED]
    return [f"http://{host}:{port}/" for host in hosts] + [trick.format(port=port) for trick in TRICKS]


class Internet(httpcore.AsyncNetworkBackend):
    """Network backend that redirects one public address to the test server, and records all connections."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.connected: list[str] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        real = ("127.0.0.1", self.port) if host == PUBLIC else (host, port)
        return await httpcore.AnyIOBackend().connect_tcp(*real, timeout=timeout)


class Server:
    """Server that sends a fixed response for each path, on all addresses of this machine, and records the requests."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.port = 0

    @property
    def internet(self) -> Internet:
        return Internet(self.port)

    def url(self, path: str = "/", host: str = "pictures.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append("")
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked[-1] = head
            answer = self.answers.get(head.split()[1], b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(answers: dict[str, Answer]) -> AsyncIterator[Server]:
    server = Server(answers)
    listening = await asyncio.start_server(server.serve, None, 0, family=socket.AF_INET)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


def ok(body: bytes = PICTURE, kind: str = "image/jpeg", extra: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def redirect(to: str, status: int = 302) -> bytes:
    return (
        f"HTTP/1.1 {status} Elsewhere\r\nContent-Length: 0\r\nLocation: ".encode() + to.encode() + b"\r\n\r\n"
    )


NAMES = {
    "pictures.example": [PUBLIC],
    "localhost": ["::1", "127.0.0.1"],
    "sub.localhost": ["127.0.0.1"],
    "inner.example": ["127.0.0.1"],
    "metadata.google.internal": ["169.254.169.254"],
}


async def look_up(host: str) -> list[str]:
    """Look up names in `NAMES`; resolve numeric addresses in any notation as this machine does."""
    if host.removesuffix(".") in NAMES:
        return NAMES[host.removesuffix(".")]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except UnicodeError:
        raise OSError from None
    return [str(place[0]) for *_, place in found]


def fetcher_at(
    server: Server,
    wire: Internet,
    resolve: Callable[[str], Awaitable[Sequence[str]]] = look_up,
    **limits: Any,
) -> PictureFetcher:
    return PictureFetcher(
        replace(FetchLimits(ports=(server.port,), seconds=600.0), **limits), resolve=resolve, wire=wire
    )


def fetched(answers: dict[str, Answer], path: str = "/", **limits: Any) -> bytes:
    """Fetch `path` from a server that sends these responses."""

    async def run() -> bytes:
        async with serving(answers) as server, fetcher_at(server, server.internet, **limits) as fetcher:
            return await fetcher.fetch(server.url(path))

    return asyncio.run(run())


def run(claim: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(claim())


def test_fetches_a_picture_unchanged() -> None:
    assert fetched({"/": ok()}) == PICTURE
    assert fetched({"/a%20b?c=d": ok(b"other")}, "/a b?c=d#e") == b"other"


@pytest.mark.parametrize("kind", ["image/png", "IMAGE/WEBP", "image/jpeg; q=1", "application/octet-stream"])
def test_accepts_picture_and_binary_content_types(kind: str) -> None:
    assert fetched({"/": ok(kind=kind)}) == PICTURE


def test_accepts_a_response_without_content_type_and_length() -> None:
    assert fetched({"/": b"HTTP/1.0 200 OK\r\n\r\n" + PICTURE}) == PICTURE


def test_joins_the_chunks_of_a_chunked_response() -> None:
    assert fetched({"/": CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"}) == b"abcde"


def test_request_reveals_nothing_about_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def claim() -> None:
        cookie = redirect("/", 307).replace(b"Location", b"Set-Cookie: a=b\r\nLocation")
        async with (
            serving({"/first": cookie, "/": ok()}) as server,
            fetcher_at(server, server.internet) as fetcher,
        ):
            assert await fetcher.fetch(server.url("/first#part")) == PICTURE
            lines = server.asked[1].splitlines()
            assert lines[0] == "GET / HTTP/1.1"
            assert f"Host: pictures.example:{server.port}" in lines
            assert "Accept-Encoding: identity" in lines
            assert {line.partition(":")[0] for line in lines[1:] if line} == {
                *("Host", "Accept", "Accept-Encoding", "Connection", "User-Agent")
            }

    run(claim)


def test_tls_sends_the_host_name_to_the_checked_address() -> None:
    async def claim() -> None:
        hello = asyncio.get_running_loop().create_future()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            hello.set_result(await reader.read(4_096))
            writer.close()

        listening = await asyncio.start_server(listen, "127.0.0.1", 0)
        wire = Internet(listening.sockets[0].getsockname()[1])
        async with PictureFetcher(resolve=look_up, wire=wire) as fetcher:
            with pytest.raises(
                FetchError, match="its server cannot be reached or has an invalid TLS certificate"
            ):
                await fetcher.fetch("https://pictures.example/")
        assert b"pictures.example" in await hello
        assert wire.connected == [PUBLIC]
        listening.close()

    run(claim)


def test_tries_at_least_150_url_forms() -> None:
    assert len(set(forms(80))) >= 150


def test_never_connects_to_a_url_form_of_a_non_public_address() -> None:
    async def claim() -> None:
        async with serving({"/": ok()}) as server:
            wire = server.internet
            async with fetcher_at(server, wire) as fetcher:
                for url in forms(server.port):
                    with pytest.raises(FetchError):
                        await fetcher.fetch(url)
            assert (wire.connected, server.asked) == ([], [])

    run(claim)


def test_rejects_every_special_address() -> None:
    async def claim() -> None:
        async with serving({}) as server, fetcher_at(server, server.internet) as fetcher:
            for host in [*SPECIAL_IPV4, *(f"[{address}]" for address in SPECIAL_IPV6), "2130706433", "127.1"]:
                with pytest.raises(
                    ForbiddenUrlError, match=r"its host has an address that is not public|malformed"
                ):
                    await fetcher.fetch(server.url(host=host))

    run(claim)


def test_follows_no_redirect_to_a_non_public_address() -> None:
    async def claim() -> None:
        async with serving({}) as server:
            # A header cannot contain the other URLs.
            urls = [url for url in forms(server.port) if url.isprintable()]
            wire = server.internet
            async with fetcher_at(server, wire) as fetcher:
                for url in urls:
                    server.answers["/"] = redirect(url)
                    with pytest.raises(FetchError):
                        await fetcher.fetch(server.url())
            # Some URLs are relative, so they lead to a path of the server itself.
            assert set(wire.connected) == {PUBLIC}
            assert len(server.asked) == len(wire.connected) >= len(urls) > 140

    run(claim)


@pytest.mark.parametrize("company", [[], [PUBLIC]], ids=["alone", "with a public address"])
def test_rejects_names_that_resolve_to_a_non_public_address(company: list[str]) -> None:
    async def claim() -> None:
        async with serving({"/": ok()}) as server:
            wire = server.internet
            answer: list[str] = []

            async def resolve(host: str) -> list[str]:
                return answer

            async with fetcher_at(server, wire, resolve) as fetcher:
                for address in [*SPECIAL_IPV4, *SPECIAL_IPV6, "127.1", "no address"]:
                    for answer[:] in ([*company, address], [address, *company]):
                        with pytest.raises(
                            ForbiddenUrlError, match="its host has an address that is not public"
                        ):
                            await fetcher.fetch(server.url())
            assert (wire.connected, server.asked) == ([], [])

    run(claim)


class Rebinding:
    """Resolver that returns a public address at first, and a private address afterwards."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, host: str) -> list[str]:
        self.asked += 1
        return [PUBLIC] if self.asked == 1 else ["127.0.0.1"]


def test_connects_to_the_checked_address_if_the_name_resolves_differently_later() -> None:
    async def claim() -> None:
        async with serving({"/": ok()}) as server:
            name, wire = Rebinding(), server.internet
            async with fetcher_at(server, wire, name) as fetcher:
                assert await fetcher.fetch(server.url()) == PICTURE
                assert (name.asked, wire.connected) == (1, [PUBLIC])
                with pytest.raises(ForbiddenUrlError):
                    await fetcher.fetch(server.url())
                assert wire.connected == [PUBLIC]

    run(claim)


def test_checks_the_addresses_again_after_a_redirect() -> None:
    async def claim() -> None:
        async with serving({"/": redirect("/again"), "/again": ok()}) as server:
            wire = server.internet
            async with fetcher_at(server, wire, Rebinding()) as fetcher:
                with pytest.raises(ForbiddenUrlError):
                    await fetcher.fetch(server.url())
            assert (wire.connected, len(server.asked)) == ([PUBLIC], 1)

    run(claim)


def test_checks_addresses_from_the_system_resolver() -> None:
    async def claim() -> None:
        async with serving({"/": ok()}) as server:
            wire, limits = server.internet, FetchLimits(ports=(server.port,))
            async with PictureFetcher(limits, wire=wire) as fetcher:
                for host in ("localhost", "127.1", "2130706433", "0x7f000001"):
                    with pytest.raises(ForbiddenUrlError):
                        await fetcher.fetch(server.url(host=host))
            assert (wire.connected, server.asked) == ([], [])

    run(claim)


def test_same_url_forms_reach_this_machine_without_the_check() -> None:
    """Show that the tests above can fail."""

    async def claim() -> None:
        async with serving({"/": ok()}) as server:
            limits = FetchLimits(ports=(server.port,))
            async with PictureFetcher(limits, permits=lambda address: True) as fetcher:
                hosts = (
                    "127.0.0.1",
                    "localhost",
                    "127.1",
                    "2130706433",
                    "0x7f000001",
                    "0177.1",
                    "127。0。0。1",
                )
                for host in hosts:
                    assert await fetcher.fetch(server.url(host=host)) == PICTURE
            assert len(server.asked) == len(hosts)

    run(claim)


def test_tries_addresses_one_after_another() -> None:
    async def resolve(host: str) -> list[str]:
        return ["1.1.1.1", "2606:4700:4700::1111", PUBLIC]

    class Partial(Internet):
        async def connect_tcp(self, host: str, *others: Any, **options: Any) -> httpcore.AsyncNetworkStream:
            if host != PUBLIC:
                self.connected.append(host)
                raise httpcore.ConnectError("no route")
            return await super().connect_tcp(host, *others, **options)

    async def claim() -> None:
        async with serving({"/": ok()}) as server:
            wire = Partial(server.port)
            async with fetcher_at(server, wire, resolve) as fetcher:
                assert await fetcher.fetch(server.url()) == PICTURE
            assert wire.connected == ["1.1.1.1", "2606:4700:4700::1111", PUBLIC]

    run(claim)


def test_rejects_unusual_ports() -> None:
    async def claim() -> None:
        wire = Internet()
        async with PictureFetcher(resolve=look_up, wire=wire) as fetcher:
            for port in (22, 25, 81, 6379, 9200):
                with pytest.raises(
                    ForbiddenUrlError, match="the port of its URL is not one of 80, 443, 8080, 8443"
                ):
                    await fetcher.fetch(f"http://pictures.example:{port}/")
        assert wire.connected == []

    run(claim)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://me:secret@pictures.example/", "at pictures.example .*contains a user name or password"),
        ("http://me@pictures.example/", "at pictures.example .*contains a user name or password"),
        ("ftp://pictures.example/", "at pictures.example .*neither http nor https"),
        ("pictures.example/a.png", "neither http nor https"),
        ("http:///a.png", "has no valid host"),
        ("http://pic%74ures.example/", "has no valid host"),
        ("http://[::1/", "malformed"),
        ("http://pictures.example/" + "a" * 2_048, "longer than 2,048 characters"),
    ],
)
def test_rejects_a_forbidden_url_with_the_reason(url: str, reason: str) -> None:
    async def claim() -> None:
        wire = Internet()
        async with PictureFetcher(resolve=look_up, wire=wire) as fetcher:
            with pytest.raises(ForbiddenUrlError, match=reason):
                await fetcher.fetch(url)
        assert wire.connected == []

    run(claim)


def test_stops_reading_a_picture_that_is_too_large() -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: image/png\r\n\r\n")
        while True:
            writer.write(bytes(65_536))
            sent += 65_536
            await writer.drain()

    with pytest.raises(FetchError, match="it is larger than 100,000 bytes"):
        fetched({"/": endless}, max_bytes=100_000)
    assert sent < 20_000_000  # the socket buffers accept more than is read


def test_fetches_at_most_the_maximum_number_of_bytes() -> None:
    assert fetched({"/": ok(bytes(1_000))}, max_bytes=1_000) == bytes(1_000)
    with pytest.raises(FetchError, match="it is larger than 999 bytes"):
        fetched({"/": ok(bytes(1_000))}, max_bytes=999)


def test_does_not_read_a_picture_declared_as_too_large() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\n")
        await asyncio.sleep(3600)

    with pytest.raises(FetchError, match="it is larger than 10,000,000 bytes"):  # not a timeout
        fetched({"/": silent})


def test_handles_a_wrong_content_length() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    with pytest.raises(FetchError, match="its server closed the connection"):
        fetched({"/": head % 9_000 + bytes(10)})
    assert fetched({"/": head % 5 + bytes(9_000)}) == bytes(5)


async def trickled_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.02)


async def trickled_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)


async def nothing(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


@pytest.mark.parametrize("slow", [trickled_body, trickled_headers, nothing])
def test_times_out_on_a_slow_server(
    slow: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    with pytest.raises(FetchError, match=r"it took longer than 0\.3 s"):
        fetched({"/": slow}, seconds=0.3)


def test_timeout_includes_the_host_name_lookup() -> None:
    async def slow(host: str) -> list[str]:
        await asyncio.sleep(3600)
        return [PUBLIC]

    async def claim() -> None:
        async with PictureFetcher(FetchLimits(seconds=0.2), resolve=slow, wire=Internet()) as fetcher:
            with pytest.raises(FetchError, match=r"it took longer than 0\.2 s"):
                await fetcher.fetch("http://pictures.example/")

    run(claim)


def test_rejects_endless_headers() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X: " + b"y" * 10_000 + b"\r\n")
            await writer.drain()

    with pytest.raises(FetchError, match="its server closed the connection or sent an invalid HTTP response"):
        fetched({"/": endless})


def test_follows_a_few_redirects_but_no_loop() -> None:
    steps: dict[str, Answer] = {"/": redirect("a", 301), "/a": redirect("/b", 303), "/b": redirect("?c", 308)}
    assert fetched({**steps, "/b?c": ok()}) == PICTURE

    async def claim() -> None:
        async with serving({"/": redirect("/")}) as server, fetcher_at(server, server.internet) as fetcher:
            with pytest.raises(FetchError, match="it redirects more than 3 times"):
                await fetcher.fetch(server.url())
            assert len(server.asked) == 4

    run(claim)


@pytest.mark.parametrize("location", ["http://[::1", "http://\x7f", "\ud7ff" * 3_000])
def test_rejects_a_redirect_to_a_malformed_url(location: str) -> None:
    with pytest.raises(FetchError):
        fetched({"/": redirect(location)})


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "image/gif", "application/json", "image"])
def test_rejects_content_types_other_than_pictures(kind: str) -> None:
    with pytest.raises(FetchError, match=f"its content type is '{kind[:9]}"):
        fetched({"/": ok(kind=kind)})


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
def test_rejects_a_compressed_response(encoding: str) -> None:
    with pytest.raises(
        FetchError, match="its server compressed the response, which the request did not allow"
    ):
        fetched({"/": ok(gzip.compress(bytes(10**6)), extra=f"Content-Encoding: {encoding}\r\n")})


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
def test_rejects_any_status_other_than_200(status: int) -> None:
    with pytest.raises(FetchError, match=f"its server responded with status {status}"):
        fetched({"/": f"HTTP/1.1 {status} Something\r\nContent-Type: image/png\r\n\r\n".encode()})


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n", bytes(50)]
)
def test_rejects_a_response_that_is_not_http(answer: bytes) -> None:
    with pytest.raises(FetchError, match="its server closed the connection or sent an invalid HTTP response"):
        fetched({"/": answer})


def mangled(rng: random.Random) -> bytes:
    """Return a response in which random bytes are changed, removed or repeated."""
    raw = bytearray(rng.choice((ok(b"body"), redirect("/other?x#y"), CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(raw))
        match rng.randrange(3):
            case 0:
                raw[at] = rng.choice((rng.randrange(256), *b"\r\n:\0 /[]@%"))
            case 1:
                del raw[at : at + rng.randrange(1, 9)]
            case 2:
                raw[at:at] = raw[at : at + rng.randrange(1, 40)] * rng.choice((1, 2, 90))
        raw = raw or bytearray(b"H")
    return bytes(raw)


async def run_mangled(count: int) -> tuple[int, int]:
    """Fetch `count` mangled responses; return the numbers of fetched and rejected responses, and raise other errors."""
    rng = random.Random(count)
    fetched = 0
    async with serving({}) as server, fetcher_at(server, server.internet, seconds=2.0) as fetcher:
        for _ in range(count):
            server.answers["/"] = mangled(rng)
            try:
                await fetcher.fetch(server.url())
                fetched += 1
            except FetchError:
                pass
    return fetched, count - fetched


def test_mangled_responses_are_fetched_or_raise_fetch_error() -> None:
    fetched, refused = asyncio.run(run_mangled(150))
    assert fetched > 5
    assert refused > 50


@pytest.mark.soak
def test_20000_mangled_responses_are_fetched_or_raise_fetch_error() -> None:
    fetched, refused = asyncio.run(run_mangled(20_000))
    assert fetched > 1_000
    assert refused > 5_000


def test_error_names_an_unreachable_host() -> None:
    async def claim() -> None:
        async with PictureFetcher(resolve=look_up, wire=Internet(port=1)) as fetcher:
            with pytest.raises(
                FetchError, match=r"at pictures\.example could not be fetched: its server cannot be"
            ):
                await fetcher.fetch("http://pictures.example/secret?token=1")
            with pytest.raises(
                FetchError, match=r"at gone\.example could not be fetched: its host name cannot be resolved"
            ):
                await fetcher.fetch("http://gone.example/")

    run(claim)


def test_errors_reveal_only_the_host_of_the_url() -> None:
    async def claim() -> None:
        async with PictureFetcher(resolve=look_up, wire=Internet()) as fetcher:
            for url in ("http://inner.example/path?token=1", "http://me:secret@inner.example/"):
                with pytest.raises(ForbiddenUrlError) as refused:
                    await fetcher.fetch(url)
                said = str(refused.value)
                assert said.startswith("The picture at inner.example was not fetched: ")
                assert said.endswith("or send the picture itself.")
                assert not any(word in said for word in ("127.0.0.1", "path", "token", "me:", "secret"))

    run(claim)


def test_limits_concurrent_fetches() -> None:
    at_once = [0, 0]

    async def counted(writer: asyncio.StreamWriter) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0.02)
        at_once[0] -= 1
        writer.write(ok())

    async def claim() -> None:
        async with (
            serving({"/": counted}) as server,
            fetcher_at(server, server.internet, concurrency=3) as fetcher,
        ):
            assert await asyncio.gather(*[fetcher.fetch(server.url()) for _ in range(12)]) == [PICTURE] * 12

    run(claim)
    assert at_once == [0, 3]


def test_cancelled_fetch_frees_its_slot() -> None:
    async def claim() -> None:
        async with (
            serving({"/": ok(), "/slow": nothing}) as server,
            fetcher_at(server, server.internet, concurrency=1) as fetcher,
        ):
            given_up = asyncio.create_task(fetcher.fetch(server.url("/slow")))
            while not server.asked:
                await asyncio.sleep(0.001)
            given_up.cancel()
            assert await fetcher.fetch(server.url()) == PICTURE
            with pytest.raises(asyncio.CancelledError):
                await given_up

    run(claim)
