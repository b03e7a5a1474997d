"""Requests per second of servers with several workers, relative to one of one process; see `benchmarks.service`.

Several client processes share the load, with the same number of connections for each worker. The clients take
processor time from the workers if there are too few cores for both. The benchmark therefore also counts the processor
time that all processes of the server take for a request, and the cores that the clients use. If a request takes the
same time with N workers as with one, they do N times the work, once each has a core.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from ..results import show
from .http_load import Outcome
from .load_processes import Clients
from .server_process import Network, processor_seconds, served

CONNECTIONS = 16
"""Connections for each worker."""

WARM_UP_S = 0.5
"""Maximum seconds of a block of the first round, which does not count."""


@dataclass
class _Blocks:
    """Outcomes of one kind of request with one number of workers, and what each cost; one entry per round."""

    outcomes: list[Outcome] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [outcome.rate for outcome in self.outcomes]

    @property
    def processor_us(self) -> float:
        """Processor time of the server's processes per response in microseconds."""
        return median(
            1e6 * spent / sum(outcome.statuses.values())
            for spent, outcome in zip(self.processor_s, self.outcomes, strict=True)
        )

    def quantile_ms(self, share: float) -> float:
        return median(1e3 * outcome.quantile(share) for outcome in self.outcomes)

    @property
    def refused_share(self) -> float:
        """Share of the responses that are refusals, because the server is overloaded."""
        statuses = Outcome.merged(self.outcomes).statuses
        assert {200} <= {*statuses} <= {200, 429, 503}, statuses
        return 1 - statuses[200] / sum(statuses.values())


def compare(
    index: Path,
    counts: Sequence[int],
    dim: int,
    kinds: Mapping[str, Sequence[bytes]],
    clients: int,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """Measure servers with each number of workers in turn, and return the figures of each kind of request."""
    counts = sorted({1, *counts})
    blocks = {(kind, count): _Blocks() for kind in kinds for count in counts}
    draw = Random(0)
    with ExitStack() as stack:
        asking = stack.enter_context(Clients(clients))
        servers = {count: stack.enter_context(served(index, count, Network(dim))) for count in counts}
        for turn in range(-1, rounds):
            for kind, count in draw.sample([*blocks], len(blocks)):
                port, pid = servers[count]
                begun = processor_seconds(pid)
                block_s = min(seconds, WARM_UP_S) if turn < 0 else seconds
                outcome = asking.closed_loop(port, kinds[kind], CONNECTIONS * count, block_s)
                if turn >= 0:
                    blocks[kind, count].outcomes.append(outcome)
                    blocks[kind, count].processor_s.append(processor_seconds(pid) - begun)
    rows = [_figures(kind, count, one, blocks[kind, 1]) for (kind, count), one in blocks.items()]
    show(
        f"{CONNECTIONS} connections for each worker, {clients} client processes, {os.cpu_count()} cores for all",
        (
            "request",
            "workers",
            "per s",
            "ratio",
            "ratio / N",
            "CPU us",
            "client cores",
            "p50 ms",
            "p99 ms",
            "refused",
        ),
        [
            [
                row["request"],
                str(row["workers"]),
                f"{row['per_s']:,.0f}",
                f"{row['ratio']:.2f}",
                f"{row['ratio_per_worker']:.2f}",
                f"{row['processor_us']:,.0f}",
                f"{row['client_cores']:.2f}",
                f"{row['p50_ms']:.1f}",
                f"{row['p99_ms']:.1f}",
                f"{row['refused_share']:.3f}",
            ]
            for row in rows
        ],
    )
    return {"cores": os.cpu_count(), "clients": clients, "connections_per_worker": CONNECTIONS, "rows": rows}


def _figures(kind: str, count: int, blocks: _Blocks, one: _Blocks) -> dict[str, Any]:
    """Return the figures of `count` workers; `one` is the same with one process."""
    ratio = median(rate / alone for rate, alone in zip(blocks.rates, one.rates, strict=True))
    return {
        "request": kind,
        "workers": count,
        "per_s": median(blocks.rates),
        "ratio": ratio,
        "ratio_per_worker": ratio / count,
        "processor_us": blocks.processor_us,
        "client_cores": median(outcome.client_cores for outcome in blocks.outcomes),
        "p50_ms": blocks.quantile_ms(0.5),
        "p99_ms": blocks.quantile_ms(0.99),
        "refused_share": blocks.refused_share,
    }
