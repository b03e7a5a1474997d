"""Ten times as much as can be answered: `python -m benchmarks.overload [--quick]`.

New items in words are asked about, each of which takes the network's time: a stand-in takes 20 ms for a batch and 2 ms
for each item of it. A closed loop measures how many can be answered; then an open loop sends half as many, ten times as
many for a minute, and half as many again, on new connections as they are needed. Answers are timed from when their
request was sent; by how much the asking process was late to send it is told beside.
"""

import argparse
import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np

from benchmarks.rig.http_load import Outcome, closed_loop, open_loop, request
from benchmarks.rig.results import conclude, show
from benchmarks.rig.shop import FixedEncoder, Shop, relations
from model.embeddings.encoder_protocol import ItemEncoder
from service.app import create_app
from service.serve import freeze_startup_objects, server_of
from service.settings import ServeConfig

DIM = 64
BATCH_S, ITEM_S = 0.02, 0.002
CONNECTIONS = 64
"""Connections that measure how much can be answered."""


def serve(index: Path, pipe: Connection) -> None:
    """The server's process: tell the port, and answer until it is ended."""
    config = ServeConfig(index=index, port=0, log_level="error")
    encoder = FixedEncoder(dim=DIM, batch=BATCH_S, each=ITEM_S)
    app = create_app(config, lambda *_: cast(ItemEncoder, encoder), lambda _: freeze_startup_objects())
    with socket.create_server((config.host, 0)) as listener:
        pipe.send(listener.getsockname()[1])
        server_of(app, config).run(sockets=[listener])


@contextmanager
def served(index: Path) -> Iterator[tuple[int, int]]:
    """Port and process id of a server."""
    fresh = multiprocessing.get_context("spawn")
    pipe, theirs = fresh.Pipe()
    process = fresh.Process(target=serve, args=(index, theirs), daemon=True)
    process.start()
    port = pipe.recv()
    try:
        while httpx.get(f"http://127.0.0.1:{port}/readyz").status_code != 200:
            time.sleep(0.2)
        assert process.pid is not None
        yield port, process.pid
    finally:
        process.terminate()
        process.join()


def resident_mib(process: int) -> float:
    """Memory of a process, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(
    port: int, process: int, seconds: float, short: float
) -> tuple[dict[str, Outcome], dict[str, float]]:
    """What became of the requests of each stage, and the server's memory."""
    texts = [f"A new item, number {n}, red" + " and round" * (n % 7) for n in range(2_000)]
    bodies = [json.dumps({"text": text, "relation": "relation-1", "k": 10}).encode() for text in texts]
    messages = [request("/retrieve", body) for body in bodies]
    closed_loop(port, messages, CONNECTIONS, short)
    stages = {"as much as can be": closed_loop(port, messages, CONNECTIONS, short)}
    capacity = stages["as much as can be"].rate
    stages["half as much"] = open_loop(port, messages, capacity / 2, short)
    open_loop(port, messages, 10 * capacity, min(short, 2))
    before = resident_mib(process)
    stages["ten times as much"] = open_loop(port, messages, 10 * capacity, seconds)
    memory = {"before": before, "after": resident_mib(process)}
    time.sleep(1)
    stages["half as much, a second later"] = open_loop(port, messages, capacity / 2, short)
    stages["as much as can be, then"] = closed_loop(port, messages, CONNECTIONS, short)
    return stages, memory


def main() -> None:
    """Make an index, serve it, ask too much of it, show, conclude."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--seconds", type=float, default=60, help="of too much")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = Shop(Path(folder), 1_000, relations(10), DIM).write()
        with served(index) as (port, process):
            seconds, short = (1.0, 0.5) if asked.quick else (asked.seconds, max(asked.seconds / 6, 2))
            stages, memory = measure(port, process, seconds, short)
    _show(stages)
    full, half, over = (stages[name] for name in ("as much as can be", "half as much", "ten times as much"))
    refused = over.statuses[429] + over.statuses[503]
    figures: dict[str, Any] = {
        "good_share_of_capacity": over.rate / full.rate,
        "accepted_p99_ms": 1e3 * over.quantile(0.99),
        "half_load_p99_ms": 1e3 * half.quantile(0.99),
        "sent_late_p99_ms": 1e3 * float(np.quantile(over.late, 0.99)),
        "refused_p99_ms": 1e3 * over.quantile(0.99, 429, 503),
        "refused": refused,
        "refusals_with_retry_after": over.retry_after / max(refused, 1),
        "other_answers": sum(over.statuses.values()) - over.statuses[200] - refused,
        "memory_growth_mib": memory["after"] - memory["before"],
        "speed_afterwards": stages["as much as can be, then"].rate / full.rate,
    }
    conclude(figures)


def _show(stages: dict[str, Outcome]) -> None:
    rows = [
        [
            name,
            f"{sum(one.statuses.values()) / one.seconds:,.0f}",
            f"{one.rate:,.0f}",
            f"{1e3 * one.quantile(0.5):.0f}",
            f"{1e3 * one.quantile(0.99):.0f}",
            f"{(one.statuses[429] + one.statuses[503]) / one.seconds:,.0f}",
            f"{1e3 * one.quantile(0.99, 429, 503):.0f}",
        ]
        for name, one in stages.items()
    ]
    columns = ("asked", "asked/s", "answered/s", "p50 ms", "p99 ms", "refused/s", "p99 ms")
    show("new items in words, one server process", columns, rows)


if __name__ == "__main__":
    main()
