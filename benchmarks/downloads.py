"""Rate of downloads in bulk: `python -m benchmarks.downloads [--quick] [--connections 64]`.

A local server in a process of its own sends small pictures; of every 100, some have a fault (`benchmarks.rig.
picture_server`). `rcml prepare --fetch` downloads, checks, decodes, scales and stores them, and tries again what may
succeed later. The references are bare clients (httpx, and httpcore without a pool) that ask for the same addresses over
as many connections, once each, and drop what they get. All take turns. The ratio is to the faster one.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpcore
import httpx

from benchmarks.rig.measurement import interleave
from benchmarks.rig.picture_server import FAULTS, paths, picture_server
from benchmarks.rig.results import conclude, show
from model.data.pictures.downloads import DownloadLimits, download, reasons
from model.data.pictures.picture_cache import Failure, PictureCache

PICTURES = 10_000
FAULT_SHARE = 0.05
SIDE = 256


async def _httpx(addresses: list[str], connections: int) -> None:
    """Download `addresses` with the connection pool of httpx."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(limits=limits, trust_env=False, timeout=20) as client:

        async def work(waiting: Iterator[str]) -> None:
            for address in waiting:
                with suppress(httpx.HTTPError):
                    (await client.get(address)).read()

        await _share(work, addresses, connections)


async def _httpcore(addresses: list[str], connections: int) -> None:
    """Download `addresses` with httpcore, which needs less than httpx: each worker has a connection of its own."""

    async def work(waiting: Iterator[str]) -> None:
        connection = None
        for address in waiting:
            if connection is None or not connection.is_available():
                connection = httpcore.AsyncHTTPConnection(httpcore.URL(address).origin)
            with suppress(httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException):
                await connection.request("GET", address)
        if connection is not None:
            await connection.aclose()

    await _share(work, addresses, connections)


async def _share(
    work: Callable[[Iterator[str]], Coroutine[None, None, None]], addresses: list[str], connections: int
) -> None:
    waiting = iter(addresses)
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work(waiting))


def main() -> None:
    """Run the benchmark and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="use fewer pictures and rounds")
    parser.add_argument("--connections", type=int, default=64, help="number of connections of both clients")
    parser.add_argument(
        "--fault-share", type=float, default=FAULT_SHARE, help="share of pictures with a fault"
    )
    asked = parser.parse_args()
    number = 300 if asked.quick else PICTURES
    rounds = 2 if asked.quick else 3
    limits = DownloadLimits(asked.connections, asked.connections)
    turns = count()
    failed: list[Failure] = []
    with picture_server() as host, tempfile.TemporaryDirectory() as folder:

        def addresses() -> list[str]:
            """Return new addresses, so that pictures that are refused at first are refused in every turn."""
            turn = next(turns)
            return [f"http://{host}{path}?{turn}" for path in paths(number, asked.fault_share)]

        def ours() -> None:
            with PictureCache.open(Path(folder) / f"{next(turns)}", SIDE) as cache:
                failed[:] = download(addresses(), cache, limits, [host])

        bare = {
            "httpx": lambda: asyncio.run(_httpx(addresses(), asked.connections)),
            "httpcore": lambda: asyncio.run(_httpcore(addresses(), asked.connections)),
        }
        timings = interleave({"rcml": ours, **bare}, rounds)
    named = reasons(failed)
    expected = {fault: reason for fault, reason in FAULTS.items() if reason}
    complete = all(failure.reason == expected[failure.address.split("/")[3]] for failure in failed) and {
        failure.address.split("/")[3] for failure in failed
    } == set(expected)
    rates = {side: number / timings.median(side) for side in timings.seconds}
    ratios = {side: timings.ratio(side, "rcml") for side in bare}
    rows = [(side, f"{rate:,.0f}", f"{ratios.get(side, 1.0):.2f}") for side, rate in rates.items()]
    show("Pictures per second", ("client", "per second", "ratio of rcml to it"), rows)
    show(
        "Failures by reason", ("reason", "pictures"), [(name, f"{number}") for name, number in named.items()]
    )
    conclude(
        {
            "pictures": number,
            **{f"{side}_per_s": round(rate) for side, rate in rates.items()},
            "ratio": round(min(ratios.values()), 3),
            "failures": len(failed),
            "all_faults_named": complete,
        }
    )


if __name__ == "__main__":
    main()
