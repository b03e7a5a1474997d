"""Requests per second of a server with several workers, relative to one of one process; see `benchmarks.service`.

The client takes processor time from the workers if all share the same cores. The benchmark therefore also counts the
processor time that all processes of the server take for a request. If it is the same with N workers as with one, they
do N times the work, once each has a core.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import cast

import httpx

from model.checkpoint.checkpoint import Checkpoint
from model.embeddings.encoder_protocol import ItemEncoder

from .http_load import Outcome, closed_loop
from .results import show
from .shop import FixedEncoder

ROUNDS = 5
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class _Encoder(FixedEncoder):
    towers = "none"


def open_fixed(checkpoint: Path, *how: object) -> ItemEncoder:
    """Open the encoder without a network."""
    relations = len(Checkpoint.open(checkpoint).relations)
    return cast(ItemEncoder, _Encoder(relations, int(os.environ["BENCHMARK_DIM"])))


@contextmanager
def served(index: Path, workers: int, dim: int) -> Iterator[tuple[int, int]]:
    """Serve an index with `rcml serve --workers`; yield the port and the process."""
    command = [sys.executable, "-m", "benchmarks.rig.worker_scaling", str(index), str(workers)]
    environment = {**os.environ, "BENCHMARK_DIM": str(dim)}
    with (
        tempfile.NamedTemporaryFile("r") as log,
        Path(log.name).open("w") as written,
        subprocess.Popen(command, stderr=written, env=environment) as process,
    ):
        while (listening := re.search(r"http://127\.0\.0\.1:(\d+)", Path(log.name).read_text())) is None:
            assert process.poll() is None, Path(log.name).read_text()
            time.sleep(0.1)
        try:
            while httpx.get(f"{listening[0]}/readyz", timeout=600).status_code != 200:
                time.sleep(0.2)
            yield int(listening[1]), process.pid
        finally:
            process.terminate()


def processor_seconds(parent: int) -> float:
    """Return the processor time of a process and its children."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(folder.name) == parent or int(fields[1]) == parent:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def compare(
    index: Path,
    workers: int,
    dim: int,
    kinds: Mapping[str, Sequence[bytes]],
    connections: int,
    seconds: float,
) -> dict[str, float]:
    """Measure one and `workers` processes in turn, and return the ratios of each kind of request."""
    rates: dict[tuple[str, int], list[float]] = {}
    costs: dict[tuple[str, int], list[float]] = {}
    with served(index, 1, dim) as one, served(index, workers, dim) as several:
        for turn in range(-1, ROUNDS):
            for kind, messages in kinds.items():
                for count, (port, pid) in ((1, one), (workers, several)):
                    begun = processor_seconds(pid)
                    outcome: Outcome = closed_loop(port, messages, connections, seconds)
                    assert set(outcome.statuses) == {200}, outcome.statuses
                    if turn >= 0:
                        spent = processor_seconds(pid) - begun
                        rates.setdefault((kind, count), []).append(outcome.rate)
                        costs.setdefault((kind, count), []).append(spent / outcome.statuses[200])
    figures: dict[str, float] = {}
    rows = []
    for kind in kinds:
        rate = median(b / a for a, b in zip(rates[kind, 1], rates[kind, workers], strict=True))
        cost = median(b / a for a, b in zip(costs[kind, 1], costs[kind, workers], strict=True))
        figures |= {f"{kind}_workers_ratio": rate, f"{kind}_processor_ratio": cost}
        rows += [
            [
                f"{kind}, {count} workers" if count > 1 else f"{kind}, one process",
                f"{median(rates[kind, count]):,.0f}",
                f"{1e6 * median(costs[kind, count]):,.0f}",
                "" if count == 1 else f"{rate:.2f}",
                "" if count == 1 else f"{cost:.2f}",
            ]
            for count in (1, workers)
        ]
    show(
        f"{connections} connections, {os.cpu_count()} cores shared with the client",
        ("request", "requests/s", "processor us", "ratio", "processor ratio"),
        rows,
    )
    return figures


def main() -> None:
    """Serve the index and the number of workers in the arguments."""
    from service.serve import serve
    from service.settings import ServeConfig

    config = ServeConfig(index=Path(sys.argv[1]), port=0, log_level="warning", workers=int(sys.argv[2]))
    serve(config, open_encoder=open_fixed)


if __name__ == "__main__":
    main()
