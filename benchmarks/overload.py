"""Service under a load of ten times its capacity: `python -m benchmarks.overload [--quick]`.

Each request contains the text of a new item, which the network must encode. A stand-in for the network takes 20 ms per
batch and 2 ms per item. A closed loop measures the capacity in requests per second. An open loop then sends requests at
half the capacity, at two, five and ten times the capacity on 2,500 connections, and at half the capacity again. A
closed loop of 300 clients then asks again at once after each refusal. Finally the first closed loop measures the
capacity again. `--index FOLDER` serves that index with the network of its own checkpoint.

Response times are measured from the moment at which a request is sent. The benchmark also reports how late the client
process itself was in sending the requests, and how much processor it used: well below 1 core, the client is not the
limit.
"""

import argparse
import json
import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from service.engine.engine import OpenEncoder
from service.engine.network_process.network_process import NetworkProcess
from service.serve import closed_on_sigterm, freeze_startup_objects, server_of
from service.settings import ServeConfig

DIM = 64
BATCH_S, ITEM_S = 0.02, 0.002
CONNECTIONS = 64
"""Number of connections of the closed loop."""


MAX_CONNECTIONS = 2_500
"""Number of connections of the open loop under overload, as of that many users."""

OVERLOADS = {2: "two times capacity", 5: "five times capacity", 10: "ten times capacity"}
"""Loads of the open loop as multiples of the capacity, and the names of the stages."""

HASTY_CLIENTS = 300
"""Number of clients that ask again at once after a refusal."""


def serve(index: Path, own_network: bool, pipe: Connection) -> None:
    """Run the server process: send the port through `pipe`, then serve until terminated."""
    config = ServeConfig(index=index, port=0, log_level="error")
    encoder = FixedEncoder(dim=DIM, batch=BATCH_S, each=ITEM_S)
    with closed_on_sigterm(), ExitStack() as stack:
        opened: OpenEncoder = lambda *_: cast(ItemEncoder, encoder)  # noqa: E731
        if own_network:
            opened = stack.enter_context(NetworkProcess("error")).opener(config.worker_patience)
        app = create_app(config, opened, lambda _: freeze_startup_objects())
        listener = stack.enter_context(socket.create_server((config.host, 0)))
        pipe.send(listener.getsockname()[1])
        server_of(app, config).run(sockets=[listener])


@contextmanager
def served(index: Path, own_network: bool) -> Iterator[tuple[int, int]]:
    """Start a server in its own process; yield its port and process ID."""
    fresh = multiprocessing.get_context("spawn")
    pipe, theirs = fresh.Pipe()
    process = fresh.Process(target=serve, args=(index, own_network, theirs), daemon=True)
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
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def measure(
    port: int, process: int, seconds: float, short: float
) -> tuple[dict[str, Outcome], dict[str, float]]:
    """Return the outcome of each stage, and the server's memory in MiB before and after the overload."""
    texts = [f"A new item, number {n}, red" + " and round" * (n % 7) for n in range(2_000)]
    relation = httpx.get(f"http://127.0.0.1:{port}/relations").json()["relations"][1]["relation_id"]
    bodies = [json.dumps({"text": text, "relation": relation, "k": 10}).encode() for text in texts]
    messages = [request("/retrieve", body) for body in bodies]
    closed_loop(port, messages, CONNECTIONS, short)
    stages = {"full capacity": closed_loop(port, messages, CONNECTIONS, short)}
    capacity = stages["full capacity"].rate
    stages["half capacity"] = open_loop(port, messages, capacity / 2, short)
    open_loop(port, messages, 10 * capacity, min(short, 2))
    before = resident_mib(process)
    for times, name in OVERLOADS.items():
        stages[name] = open_loop(
            port, messages, times * capacity, seconds / len(OVERLOADS), MAX_CONNECTIONS, MAX_CONNECTIONS
        )
    stages["hasty clients"] = closed_loop(port, messages, HASTY_CLIENTS, short)
    memory = {"before": before, "after": resident_mib(process)}
    time.sleep(1)
    stages["half capacity, 1 s later"] = open_loop(port, messages, capacity / 2, short)
    stages["full capacity, afterwards"] = closed_loop(port, messages, CONNECTIONS, short)
    return stages, memory


def main() -> None:
    """Build an index, serve it, overload the server and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="use stages of a second or less, to check that it runs"
    )
    parser.add_argument("--seconds", type=float, default=60, help="seconds of overload")
    parser.add_argument("--index", type=Path, help="index to serve with the network of its checkpoint")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = asked.index or Shop(Path(folder), 1_000, relations(10), DIM).write()
        with served(index, asked.index is not None) as (port, process):
            seconds, short = (1.0, 0.5) if asked.quick else (asked.seconds, max(asked.seconds / 6, 2))
            stages, memory = measure(port, process, seconds, short)
    _show(stages)
    full, half, over = (stages[name] for name in ("full capacity", "half capacity", "ten times capacity"))
    refused = over.statuses[429] + over.statuses[503]
    figures: dict[str, Any] = {
        "good_share_of_capacity": over.rate / full.rate,
        "good_share_by_stage": {
            name: stages[name].rate / full.rate for name in (*OVERLOADS.values(), "hasty clients")
        },
        "accepted_p99_ms": 1e3 * over.quantile(0.99),
        "accepted_p99_ms_by_stage": {
            name: 1e3 * stages[name].quantile(0.99) for name in (*OVERLOADS.values(), "hasty clients")
        },
        "refused_p99_ms_by_stage": {
            name: 1e3 * stages[name].quantile(0.99, 429, 503)
            for name in (*OVERLOADS.values(), "hasty clients")
        },
        "client_cores": over.client_cores,
        "half_load_p99_ms": 1e3 * half.quantile(0.99),
        "sent_late_p99_ms": 1e3 * float(np.quantile(over.late, 0.99)),
        "refused_p99_ms": 1e3 * over.quantile(0.99, 429, 503),
        "refused": refused,
        "refusals_with_retry_after": over.retry_after / max(refused, 1),
        "other_answers": sum(over.statuses.values()) - over.statuses[200] - refused,
        "memory_growth_mib": memory["after"] - memory["before"],
        "speed_afterwards": stages["full capacity, afterwards"].rate / full.rate,
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
            f"{one.client_cores:.2f}",
        ]
        for name, one in stages.items()
    ]
    columns = (
        "load",
        "requests/s",
        "successes/s",
        "p50 ms",
        "p99 ms",
        "rejected/s",
        "rejected p99 ms",
        "client cores",
    )
    show("new items as text, one server process", columns, rows)


if __name__ == "__main__":
    main()
