"""Service under a load of ten times its capacity: `python -m benchmarks.overload [--quick]`.

Each request contains the text of a new item, which the network must encode. A stand-in for the network takes 20 ms per
batch and 2 ms per item. A closed loop measures the capacity in requests per second. An open loop then sends requests at
half the capacity, at two, five and ten times the capacity on 2,500 connections, and at half the capacity again. A
closed loop of 300 clients then asks again at once after each refusal. Finally the first closed loop measures the
capacity again. `--index FOLDER` serves that index with the network of its own checkpoint. `--workers N` serves with
several workers; each has a stand-in for itself, but all share the network of an index.

`--clients` processes send the requests. Response times are measured from the moment at which a request is sent. The
benchmark also reports how late the clients were in sending the requests, and how much processor they used. If they were
late by more than a few milliseconds, there are too few of them, or too few cores. The share of good answers is also
given relative to the capacity of the cores that the clients left to the server.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.rig.load.http_load import Outcome, request
from benchmarks.rig.load.load_processes import Clients
from benchmarks.rig.load.server_process import Network, resident_mib, served
from benchmarks.rig.results import conclude, show
from benchmarks.rig.shop import Shop, relations

NETWORK = Network(64, 0.02, 0.002)
CONNECTIONS = 64
"""Number of connections of the closed loop."""


MAX_CONNECTIONS = 2_500
"""Number of connections of the open loop under overload, as of that many users."""

OVERLOADS = {2: "two times capacity", 5: "five times capacity", 10: "ten times capacity"}
"""Loads of the open loop as multiples of the capacity, and the names of the stages."""

MAX_CLIENTS = 8
"""Maximum number of client processes by default."""

HASTY_CLIENTS = 300
"""Number of clients that ask again at once after a refusal."""


def measure(
    clients: Clients, port: int, process: int, seconds: float, short: float
) -> tuple[dict[str, Outcome], dict[str, float]]:
    """Return the outcome of each stage, and the server's memory in MiB before and after the overload."""
    texts = [f"A new item, number {n}, red" + " and round" * (n % 7) for n in range(2_000)]
    relation = httpx.get(f"http://127.0.0.1:{port}/relations").json()["relations"][1]["relation_id"]
    bodies = [json.dumps({"text": text, "relation": relation, "k": 10}).encode() for text in texts]
    messages = [request("/retrieve", body) for body in bodies]
    clients.closed_loop(port, messages, CONNECTIONS, short)
    stages = {"full capacity": clients.closed_loop(port, messages, CONNECTIONS, short)}
    capacity = stages["full capacity"].rate
    stages["half capacity"] = clients.open_loop(port, messages, capacity / 2, short)
    clients.open_loop(port, messages, 10 * capacity, min(short, 2))
    before = resident_mib(process)
    for times, name in OVERLOADS.items():
        stages[name] = clients.open_loop(
            port, messages, times * capacity, seconds / len(OVERLOADS), MAX_CONNECTIONS, MAX_CONNECTIONS
        )
    stages["hasty clients"] = clients.closed_loop(port, messages, HASTY_CLIENTS, short)
    memory = {"before": before, "after": resident_mib(process)}
    time.sleep(1)
    stages["half capacity, 1 s later"] = clients.open_loop(port, messages, capacity / 2, short)
    stages["full capacity, afterwards"] = clients.closed_loop(port, messages, CONNECTIONS, short)
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
    parser.add_argument("--workers", type=int, default=1, help="number of workers of the server")
    parser.add_argument(
        "--clients", type=int, help="processes that send (default: the cores that the server leaves, up to 8)"
    )
    asked = parser.parse_args()
    free = (os.cpu_count() or 1) - asked.workers - 1
    count = asked.clients or min(max(1, free), MAX_CLIENTS)
    with tempfile.TemporaryDirectory() as folder:
        index = asked.index or Shop(Path(folder), 1_000, relations(10), NETWORK.dim).write()
        network = None if asked.index else NETWORK
        with Clients(count) as clients, served(index, asked.workers, network) as (port, process):
            seconds, short = (1.0, 0.5) if asked.quick else (asked.seconds, max(asked.seconds / 6, 2))
            stages, memory = measure(clients, port, process, seconds, short)
    _show(stages, f"new items as text, {asked.workers} workers, {count} client processes")
    host = {"cores": os.cpu_count(), "workers": asked.workers, "clients": count}
    conclude({**host, **_figures(stages, memory)})


def _figures(stages: dict[str, Outcome], memory: dict[str, float]) -> dict[str, Any]:
    """Return the figures of all stages."""
    full, half, over = (stages[name] for name in ("full capacity", "half capacity", "ten times capacity"))
    refused = over.statuses[429] + over.statuses[503]
    overloads = (*OVERLOADS.values(), "hasty clients")
    return {
        "capacity_per_s": full.rate,
        "good_share_of_capacity": over.rate / full.rate,
        "good_share_by_stage": {name: stages[name].rate / full.rate for name in overloads},
        "good_share_without_client": {name: _share_without_client(stages[name], full) for name in overloads},
        "accepted_p99_ms": 1e3 * over.quantile(0.99),
        "accepted_p99_ms_by_stage": {name: 1e3 * stages[name].quantile(0.99) for name in overloads},
        "refused_p99_ms_by_stage": {name: 1e3 * stages[name].quantile(0.99, 429, 503) for name in overloads},
        "client_cores": over.client_cores,
        "half_load_p99_ms": 1e3 * half.quantile(0.99),
        "sent_late_p99_ms_by_stage": {name: _late_ms(stages[name]) for name in OVERLOADS.values()},
        "refused_p99_ms": 1e3 * over.quantile(0.99, 429, 503),
        "refused": refused,
        "refusals_with_retry_after": over.retry_after / max(refused, 1),
        "other_answers": sum(over.statuses.values()) - over.statuses[200] - refused,
        "memory_growth_mib": memory["after"] - memory["before"],
        "speed_afterwards": stages["full capacity, afterwards"].rate / full.rate,
    }


def _share_without_client(over: Outcome, full: Outcome) -> float:
    """Return the good answers as a share of the capacity of the cores that the clients left to the server.

    Otherwise the processor time of the clients counts against the server if they share its cores.
    """
    cores = os.cpu_count() or 1
    left = (cores - over.client_cores) / (cores - full.client_cores)
    return over.rate / full.rate / left


def _late_ms(outcome: Outcome) -> float:
    """Return the p99 of the milliseconds by which requests were sent late; 0 in a closed loop."""
    return 1e3 * float(np.quantile(outcome.late or [0.0], 0.99))


def _show(stages: dict[str, Outcome], title: str) -> None:
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
            f"{_late_ms(one):.1f}",
        ]
        for name, one in stages.items()
    ]
    columns = (
        "load",
        "asked/s",
        "good/s",
        "p50 ms",
        "p99 ms",
        "refused/s",
        "p99 ms",
        "client cores",
        "late ms",
    )
    show(title, columns, rows)


if __name__ == "__main__":
    main()
