"""Headers of reverse proxies: client address, scheme and host of the original request.

Anyone can send these headers. They are therefore ignored unless the peer of the connection is one of the operator's
proxies (`--trusted-proxies`). The client is then the last address in `X-Forwarded-For` or `Forwarded` (RFC 7239) that
does not belong to a trusted proxy. Each proxy appends the address of its own peer, so all addresses to the left of that
one could be made up. What cannot be parsed ends the search at the proxy that sent it.

Most proxies write one of the two headers and pass the other on as the client sent it. If both name a client, but not
the same one, neither is believed, and the proxy counts as the client.

All later code reads the result from the scope, so logs, rate limits, access control and addresses agree. The path
prefix is not read from a header: it is a setting (`root_path.py`), because cached JSON of items contains it.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

Network = IPv4Network | IPv6Network

_PAIR = re.compile(r'\s*([!#$%&\'*+.^_`|~\w-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|$)', re.ASCII)
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Proxy:
    """Pure ASGI middleware that reads the headers of trusted proxies."""

    def __init__(self, app: ASGIApp, trusted: "TrustedProxies") -> None:
        self.app = app
        self.trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as the client sent it to the outermost trusted proxy."""
        if scope["type"] == "http":
            self.trusted.restore(scope)
        await self.app(scope, receive, send)


class TrustedProxies:
    """Networks of the proxies whose headers are believed."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self.networks = tuple(ip_network(network) for network in networks)

    def restore(self, scope: Scope) -> None:
        """Put the client, the scheme and the host of the original request in the scope."""
        if self.networks and scope["client"] and self._trusts(scope["client"][0]):
            self._read(scope)

    def _read(self, scope: Scope) -> None:
        fields: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            fields.setdefault(name, []).append(value.decode("latin-1"))
        addresses = ",".join(fields.get(b"x-forwarded-for", [])).split(",")
        by_address, _ = self._client([{"for": one.strip()} for one in addresses])
        by_pairs, hop = self._client(forwarded(",".join(fields.get(b"forwarded", []))))
        if by_address and by_pairs and by_address[0] != by_pairs[0]:
            return
        scope["client"] = by_address or by_pairs or scope["client"]
        scheme = (hop.get("proto") or _last(fields, b"x-forwarded-proto")).lower()
        host = hop.get("host") or _last(fields, b"x-forwarded-host")
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        if _HOST.fullmatch(host):
            kept = [field for field in scope["headers"] if field[0] != b"host"]
            scope["headers"] = [*kept, (b"host", host.encode())]

    def _client(self, hops: Sequence[dict[str, str]]) -> tuple[tuple[str, int] | None, dict[str, str]]:
        """Return the address of the client, or None, and the entry of the proxy to which it connected."""
        client: tuple[str, int] | None = None
        read: dict[str, str] = {}
        for hop in reversed(hops):
            parsed = address(hop.get("for", ""))
            if parsed is None:
                break
            client, read = parsed, hop
            if not self._trusts(parsed[0]):
                break
        return client, read

    def _trusts(self, host: str) -> bool:
        found = _ip_address(host)
        return found is not None and any(found in network for network in self.networks)


def forwarded(value: str) -> list[dict[str, str]]:
    """Return the pairs of each element of a `Forwarded` header, names in lower case (RFC 7239, section 4).

    An element that cannot be parsed, and everything to its left, is left out.
    """
    elements: list[dict[str, str]] = [{}]
    place = 0
    while place < len(value):
        pair = _PAIR.match(value, place)
        if pair is None:  # go on after the next comma: only elements to the right of it can be trusted
            comma = value.find(",", place)
            elements = [{}]
            if comma < 0:
                return []
            place = comma + 1
            continue
        quoted, token = pair[2], pair[3]
        elements[-1][pair[1].lower()] = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        if pair[4] == ",":
            elements.append({})
        place = pair.end()
    return [element for element in elements if element]


def address(given: str) -> tuple[str, int] | None:
    """Return the address and the port (0 if absent) of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[...]:80`.

    Return None for anything else, such as `unknown` or an obfuscated name (RFC 7239, section 6.3).
    """
    host, port = given, ""
    if given.startswith("["):
        host, _, rest = given[1:].partition("]")
        if rest and not rest.startswith(":"):
            return None
        port = rest[1:]
    elif given.count(":") == 1:
        host, _, port = given.partition(":")
    if port and not (port.isascii() and port.isdecimal() and int(port) < 2**16):
        return None
    found = _ip_address(host)
    return None if found is None else (str(found), int(port or 0))


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return an IP address, an IPv4 address mapped to IPv6 as IPv4, or None if `host` is no address."""
    try:
        found = ip_address(host)
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _last(fields: dict[bytes, list[str]], name: bytes) -> str:
    """Return the value that the nearest proxy appended to a header, or an empty text."""
    return ",".join(fields.get(name, [])).rpartition(",")[2].strip()
