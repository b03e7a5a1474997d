"""`POST /retrieve` compared with the same JSON from memory: `python -m benchmarks.service [--quick]`.

Two indexes each have 100,000 items under 10 relations. Only one of them has precomputed answers. Each index has its own
server process, which runs the same application as `rcml serve`. Two more processes run a bare FastAPI application. This
process sends requests over loopback on 16 or 64 connections that it keeps busy. The kinds of request take turns, block
by block:

- `table`: retrieval for one item, from the precomputed answers
- `filtered`: the same with a filter that half of the items pass, which needs a search
- `live`: the same as `table` from the other index, which searches a graph
- `canned`: a route of the same application that returns the bytes of one such response for every request
- `fastapi`: the same route in an application without middlewares, in our server (`service/http/server.py`)
- `fastapi, parsed`: the same, and the body is validated
- `uvicorn`, and `uvicorn, parsed`: both in a plain uvicorn

Each ratio compares two kinds in the same round, so other load on the machine affects both equally. The benchmark
reports the median over the rounds. The processor time per request is that of the server process.

With `--workers 1,2,4,8`, servers of so many workers are compared instead with one of one process, for retrieval by id,
with a filter, and for new texts. `--clients` processes send the requests (`benchmarks/rig/load/worker_scaling.py`).

The results are compared with a scan of all vectors. Building the indexes takes a few minutes. `--keep FOLDER` stores
them in FOLDER, and later runs reuse them.
"""

import argparse
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, NamedTuple, cast

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from benchmarks.rig.load import worker_scaling
from benchmarks.rig.load.http_load import Outcome, closed_loop, request
from benchmarks.rig.results import conclude, show
from benchmarks.rig.shop import FixedEncoder, Shop, relations
from indexes.config import IndexKind
from indexes.index import Index
from indexes.vectors.contract import cosines
from model.embeddings.encoder_protocol import ItemEncoder
from model.similarity import Similarity, View
from service.app import create_app
from service.http.server import Server
from service.serve import limit_garbage_collection, server_of
from service.settings import ServeConfig

K = 10
CONCURRENCIES = (16, 64)

MAX_CLIENTS = 8
"""Maximum number of client processes by default."""


def serve(index: Path, pipe: Connection) -> None:
    """Run the server process: send the port through `pipe`, then serve until terminated."""
    config = ServeConfig(index=index, port=0, log_level="warning")
    app = create_app(
        config, lambda *_: cast(ItemEncoder, FixedEncoder()), lambda _: limit_garbage_collection()
    )
    canned: list[bytes] = []

    @app.post("/admin/canned")
    async def from_memory() -> Response:
        return Response(canned[0], media_type="application/json")

    listener = socket.create_server((config.host, 0))
    server = server_of(app, config)

    @app.post("/admin/can")
    async def remember(body: dict[str, Any]) -> None:
        canned[:] = [json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()]

    pipe.send(listener.getsockname()[1])
    with listener:
        server.run(sockets=[listener])


class Asked(BaseModel):
    """Body of a request, as a bare application declares it."""

    item_id: str
    relation: str
    k: int = K


def serve_bare(content: bytes, ours: bool, pipe: Connection) -> None:
    """Run a bare FastAPI application whose routes return `content`, in our server or in a plain uvicorn."""
    app = FastAPI(openapi_url=None)

    @app.post("/canned")
    async def canned() -> Response:
        return Response(content, media_type="application/json")

    @app.post("/parsed")
    async def parsed(asked: Asked) -> Response:
        return Response(content, media_type="application/json")

    plain = uvicorn.Config(app, log_level="warning", access_log=False, http="httptools", loop="uvloop")
    server = Server(app, log_level="warning") if ours else uvicorn.Server(plain)
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    with listener:
        server.run(sockets=[listener])


class Served(NamedTuple):
    """A server process."""

    port: int
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """Processor time that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def started(serve: Callable[..., None], *arguments: Any) -> Iterator[Served]:
    """Run a function that serves in a process of its own, and yield the process."""
    fresh = multiprocessing.get_context("spawn")
    pipe, theirs = fresh.Pipe()
    process = fresh.Process(target=serve, args=(*arguments, theirs), daemon=True)
    process.start()
    try:
        yield Served(pipe.recv(), process.pid or 0)
    finally:
        process.terminate()
        process.join()


@contextmanager
def served(index: Path) -> Iterator[tuple[Served, bytes]]:
    """Serve an index in its own process; yield the process, and the response that it returns from memory."""
    with started(serve, index) as server, httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        while (ready := client.get("/readyz")).status_code != 200:
            if "could not be opened" in ready.text:
                raise RuntimeError(ready.text)
            time.sleep(0.2)
        first = {"item_id": "item-0", "relation": "relation-1", "k": K}
        answer = client.post("/retrieve", json=first)
        client.post("/admin/can", json=answer.json()).raise_for_status()
        yield server, answer.content


def questions(shop: Shop, count: int, **more: Any) -> list[dict[str, Any]]:
    """Return `count` request bodies with random items and relations, and `more` fields."""
    draw = Random(0)
    return [
        {
            "item_id": f"item-{draw.randrange(shop.items)}",
            "relation": draw.choice(shop.relations).relation_id,
            "k": K,
            **more,
        }
        for _ in range(count)
    ]


def kinds_of(shop: Shop) -> dict[str, list[dict[str, Any]]]:
    """Return request bodies by kind: retrieval by id, with a filter, and for new texts."""
    by_id = questions(shop, 5_000)
    return {
        "id": by_id,
        "filtered": [{**one, "filter": {"price": {"max": 9}}} for one in by_id],
        "text": [
            {"text": f"Blue can {number}", "relation": one["relation"], "k": K}
            for number, one in enumerate(by_id)
        ],
    }


def recall(port: int, index: Index, asked: Sequence[dict[str, Any]]) -> float:
    """Return the recall@10 of the responses, relative to a scan."""
    found = 0
    places = {relation.relation_id: place for place, relation in enumerate(index.relations)}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for question in asked:
            answer = client.post("/retrieve", json=question).raise_for_status().json()
            row = index.snapshot.row(question["item_id"])
            place = places[question["relation"]]
            everything = index.snapshot.vectors(place, View.AVERAGE, range(len(index)))
            scores = cosines(everything, everything[row])
            scores[row] = -2
            least = np.partition(scores, -K)[-K]
            results = [index.snapshot.row(one["item"]["item_id"]) for one in answer["results"]]
            found += int((scores[results] >= least).sum())
    return found / (K * len(asked))


def measure(
    table: Served, live: Served, ours: Served, plain: Served, shop: Shop, rounds: int, seconds: float
) -> dict[int, dict[str, list[Outcome]]]:
    """Return the outcomes by number of connections and kind of request, one per round.

    `table` and `live` serve the indexes with and without precomputed answers, `ours` and `plain` the bare application.
    """
    bodies = [json.dumps(one).encode() for one in questions(shop, 20_000)]
    filtered = [json.dumps(one).encode() for one in questions(shop, 2_000, filter={"price": {"below": 50}})]
    kinds = {
        "table": (table, [request("/retrieve", body) for body in bodies]),
        "filtered": (table, [request("/retrieve", body) for body in filtered]),
        "live": (live, [request("/retrieve", body) for body in bodies]),
        "canned": (table, [request("/admin/canned", body) for body in bodies]),
        "fastapi": (ours, [request("/canned", body) for body in bodies]),
        "fastapi, parsed": (ours, [request("/parsed", body) for body in bodies]),
        "uvicorn": (plain, [request("/canned", body) for body in bodies]),
        "uvicorn, parsed": (plain, [request("/parsed", body) for body in bodies]),
    }
    draw = Random(0)
    outcomes: dict[int, dict[str, list[Outcome]]] = {}
    for connections in CONCURRENCIES:
        outcomes[connections] = {kind: [] for kind in kinds}
        for turn in range(-1, rounds):
            for kind in draw.sample(list(kinds), len(kinds)):
                server, messages = kinds[kind]
                before = server.cpu_seconds
                # At 64 connections, the server refuses some of the filtered questions.
                most = min(connections, 4) if kind == "filtered" else connections
                outcome = closed_loop(server.port, messages, most, seconds)
                outcome.server_cores = (server.cpu_seconds - before) / seconds
                assert set(outcome.statuses) == {200}, (kind, outcome.statuses)
                if turn >= 0:
                    outcomes[connections][kind].append(outcome)
    return outcomes


def ratios(outcomes: dict[str, list[Outcome]], kind: str, reference: str = "canned") -> tuple[float, float]:
    """Return the requests per second and the p99 of a kind, both relative to `reference`."""
    pairs = [*zip(outcomes[kind], outcomes[reference], strict=True)]
    return (
        median(one.rate / other.rate for one, other in pairs),
        median(one.quantile(0.99) / other.quantile(0.99) for one, other in pairs),
    )


def _options() -> argparse.Namespace:
    """Parse the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="use few items and short blocks, to check that it runs"
    )
    parser.add_argument("--items", type=int, help="number of items (default: 100,000, quick: 1,000)")
    parser.add_argument("--relations", type=int, help="number of relations (default: 10, quick: 2)")
    parser.add_argument("--dim", type=int, help="components of a vector (default: 128, quick: 32)")
    parser.add_argument("--rounds", type=int, help="rounds (default: 9, quick: 2)")
    parser.add_argument("--seconds", type=float, help="seconds per block (default: 3, quick: 0.3)")
    parser.add_argument("--keep", type=Path, help="folder in which the indexes are kept and reused")
    parser.add_argument("--workers", type=_counts, default=[], help="numbers of workers, such as 1,2,4,8")
    parser.add_argument(
        "--clients",
        type=int,
        help="processes that ask servers of several workers (default: the cores that the most workers leave, up to 8)",
    )
    asked = parser.parse_args()
    defaults = (1_000, 2, 32, 2, 0.3) if asked.quick else (100_000, 10, 128, 9, 3.0)
    for name, value in zip(("items", "relations", "dim", "rounds", "seconds"), defaults, strict=True):
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.clients is None:
        asked.clients = min(max(1, (os.cpu_count() or 1) - max(asked.workers, default=1)), MAX_CLIENTS)
    return asked


def _counts(text: str) -> list[int]:
    """Parse numbers with commas between them."""
    return [int(number) for number in text.split(",")]


def main() -> None:
    """Build and serve the indexes, measure both and print the results."""
    asked = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        kind: IndexKind = "flat" if asked.quick else "hnsw"
        named = relations(asked.relations)
        views = tuple(View) if asked.workers else (View.AVERAGE,)  # new texts have no average view
        shop = Shop(folder, asked.items, named, asked.dim, kind, views, (Similarity.AVG,), 0.99)
        live = replace(shop, folder=folder / "live", answers=(), vectors=folder / "index")
        for one in (shop,) if asked.workers else (shop, live):
            if not (one.folder / "index").exists():
                one.folder.mkdir(exist_ok=True)
                one.write()
        if asked.workers:
            _compare_workers(shop, asked)
            return
        index = Index.open(folder / "index")
        try:
            with (
                served(folder / "index") as (table, answer),
                served(live.folder / "index") as (other, _),
                started(serve_bare, answer, True) as ours,
                started(serve_bare, answer, False) as plain,
            ):
                sample = questions(shop, 50 if asked.quick else 200)
                exact, near = recall(table.port, index, sample), recall(other.port, index, sample)
                outcomes = measure(table, other, ours, plain, shop, asked.rounds, asked.seconds)
        finally:
            index.close()
    _show(outcomes)
    print(f"recall@10 of live searches: {near:.4f}")
    low, high = CONCURRENCIES
    conclude(
        {
            "throughput_ratio_16": ratios(outcomes[low], "table")[0],
            "throughput_ratio_64": ratios(outcomes[high], "table")[0],
            "p99_ratio_16": ratios(outcomes[low], "table")[1],
            "p99_ratio_64": ratios(outcomes[high], "table")[1],
            "live_ratio_16": ratios(outcomes[low], "live")[0],
            "recall_at_10": exact,
            "table_ratio_16": {
                kind: ratios(outcomes[low], "table", kind)[0] for kind in outcomes[low] if kind != "table"
            },
            "cpu_us_16": {kind: _cpu_us(blocks) for kind, blocks in outcomes[low].items()},
        }
    )


def _cpu_us(blocks: Sequence[Outcome]) -> float:
    """Return the processor time of the server per request in microseconds, the median of several blocks."""
    return median(1e6 * block.server_cores / block.rate for block in blocks)


def _compare_workers(shop: Shop, asked: argparse.Namespace) -> None:
    kinds = {
        kind: [request("/retrieve", json.dumps(body).encode()) for body in bodies]
        for kind, bodies in kinds_of(shop).items()
    }
    conclude(
        worker_scaling.compare(
            shop.folder / "index",
            asked.workers,
            shop.dim,
            kinds,
            asked.clients,
            asked.rounds,
            asked.seconds,
        )
    )


def _show(outcomes: dict[int, dict[str, list[Outcome]]]) -> None:
    rows = []
    for connections, kinds in outcomes.items():
        for kind, blocks in kinds.items():
            rate, p99 = ratios(kinds, kind)
            rows.append(
                [
                    f"{kind}, {connections} connections",
                    f"{median(block.rate for block in blocks):,.0f}",
                    f"{rate:.2f}",
                    f"{_cpu_us(blocks):,.0f}",
                    f"{1e3 * median(block.quantile(0.5) for block in blocks):.1f}",
                    f"{1e3 * median(block.quantile(0.99) for block in blocks):.1f}",
                    f"{p99:.2f}",
                ]
            )
    show(
        f"one server process, Python {sys.version.split()[0]}",
        ("request", "requests/s", "to canned", "CPU us", "p50 ms", "p99 ms", "to canned"),
        rows,
    )


if __name__ == "__main__":
    main()
