"""Server of small pictures with faults, in a process of its own: `with picture_server() as address`.

The first part of a path is the behaviour of the server (`FAULTS`, or "ok"), and the rest tells pictures apart.
"""

import asyncio
import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO

import numpy as np
from PIL import Image

FAULTS = {
    "slow": None,
    "busy": None,
    "flaky": None,
    "gone": "its server responded with status 404",
    "page": "its content type is 'text/html', which is not JPEG, PNG or WebP",
    "words": "The picture cannot be decoded: it is not a JPEG, PNG or WebP",
    "half": "The picture cannot be decoded: it is damaged or truncated",
    "cut": "its server closed the connection or sent an invalid HTTP response",
    "reset": "its server closed the connection or sent an invalid HTTP response",
    "error": "its server responded with status 500",
}
"""Faults, each with the reason that a download must give; None if the picture arrives in the end.

slow: the answer takes `SLOW_S`; busy: status 429 with Retry-After at first; flaky: a reset connection at first; gone:
404; page: HTML; words: text called a picture; half: half a picture; cut: the connection closes before the end of the
picture; reset: the connection is reset; error: status 500.
"""

SLOW_S = 1.0
RETRY_AFTER_S = 1
PICTURES = 32


def pictures() -> list[bytes]:
    """Return JPEG files of 96 x 96 pixels, about 3,000 bytes each."""
    draw = np.random.default_rng(0)
    made = []
    for _ in range(PICTURES):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), np.uint8))
        file = BytesIO()
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        made.append(file.getvalue())
    return made


def paths(count: int, fault_share: float) -> list[str]:
    """Return paths of `count` pictures, of which `fault_share` have a fault, all faults equally often."""
    draw = random.Random(0)
    faults = list(FAULTS)
    kinds = [faults[n % len(faults)] if n < count * fault_share else "ok" for n in range(count)]
    draw.shuffle(kinds)
    return [f"/{kind}/{number}.jpg" for number, kind in enumerate(kinds)]


def _answer(status: str, body: bytes, kind: str = "image/jpeg", extra: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode()
        + body
    )


class _Server:
    """Server that remembers which pictures it refused once."""

    def __init__(self) -> None:
        self.files = pictures()
        self.refused: set[str] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if not await self._respond(head.split(b" ", 2)[1].decode(), writer):
                    break
        writer.close()

    async def _respond(self, path: str, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays open."""
        _, fault, rest = path.split("/", 2)
        picture = self.files[hash(rest) % PICTURES]
        first = path not in self.refused
        self.refused.add(path)
        if fault == "reset" or (fault == "flaky" and first):
            linger = struct.pack("ii", 1, 0)  # close with a reset
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        if fault == "cut":
            writer.write(_answer("200 OK", picture)[:-500])
            return False
        fixed = {
            "gone": _answer("404 Not Found", b"", "text/plain"),
            "page": _answer("200 OK", b"<p>sign in</p>", "text/html"),
            "words": _answer("200 OK", b"no picture"),
            "half": _answer("200 OK", picture[: len(picture) // 2]),
            "error": _answer("500 Internal Server Error", b"", "text/plain"),
        }
        if fault == "busy" and first:
            writer.write(
                _answer("429 Too Many Requests", b"", "text/plain", f"Retry-After: {RETRY_AFTER_S}\r\n")
            )
        else:
            writer.write(fixed.get(fault) or _answer("200 OK", picture))
        await writer.drain()
        return True


@contextmanager
def picture_server() -> Iterator[str]:
    """Start the server and yield its address, such as "127.0.0.1:40123"."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.rig.picture_server"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.communicate()


async def _main() -> None:
    listening = await asyncio.start_server(_Server().serve, "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
