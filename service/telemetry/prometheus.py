"""Prometheus metrics at `GET /metrics`: request counts, stage durations, and facts about the served index.

Every label value comes from a closed set: route templates, stages, kinds of problems. An ID or a path is never a label
value, so clients cannot increase the number of time series. Each application has its own `Metrics` with its own
registry. The workers of a server keep their counts in files in memory, as prometheus_client does for servers with
several processes, and each of them shows the sums. The counts of a worker that has ended are continued by its
successor. The code that runs a stage also measures its duration, in any thread:

    with metrics.stage(Stage.SEARCH):
        ...

If tracing is on, the same statement creates the stage's span, a child of the request's span.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, values
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from model import __version__
from service.shared.counters import Counter as Cell
from service.shared.counters import SharedCounters

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from indexes.index import Index


class Stage(StrEnum):
    """A stage of request processing that is timed."""

    FETCH = "fetch"
    """Fetching a picture from its URL."""
    DECODE = "decode"
    """Decoding the bytes of a picture."""
    ENCODE = "encode"
    """Encoding by the network, including the time in its queue."""
    SEARCH = "search"
    """Searching the index, including the time in its queue."""


DURATION_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bucket bounds in seconds, from the duration of a precomputed answer up to the default deadline."""

OVERLAP_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999, 1.0)
"""Bucket bounds of the overlap, a share from 0 to 1. The last bucket holds only complete overlaps."""


COUNTS_BYTES = 2**20
"""Size of a file of counts of a worker. Up to this size, the counts of a worker never need more room."""


class Metrics:
    """All metrics of one application."""

    def __init__(
        self,
        tracer: "Tracer | None" = None,
        counters: SharedCounters | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start all counts at zero. With a `tracer`, stages also create spans.

        A worker of a server with several gets the `counters` and the `folder` that they share. The function
        `share_counts` must have been called before.
        """
        self._tracer = tracer
        self.counters = counters or SharedCounters.alone()
        self.in_flight = 0
        self.index: Callable[[], Index | None] = lambda: None
        self.queue_length: Callable[[], int] = lambda: 0
        self.longest_call: Callable[[], float] = lambda: 0.0
        registry = CollectorRegistry()
        # The registry of a worker has only its own counts; those of all workers are read from the files.
        self._shown = registry if folder is None else CollectorRegistry()
        if folder is not None:
            MultiProcessCollector(self._shown, str(folder))  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self._shown)
        self._shown.register(_ServerCollector(self))
        self._count_requests(registry)
        self._count_shadow_runs(registry)

    @property
    def traced(self) -> bool:
        """Whether stages create spans."""
        return self._tracer is not None

    def _count_requests(self, registry: CollectorRegistry) -> None:
        labels = ("route", "method", "status")
        self._requests = Counter("rcml_requests", "HTTP requests that have ended.", labels, registry=registry)
        self._durations = Histogram(
            "rcml_request_duration_seconds",
            "Time from the arrival of a request's headers to the end of its response.",
            labels,
            registry=registry,
            buckets=DURATION_BUCKETS_S,
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        stages = Histogram(
            "rcml_stage_duration_seconds",
            "Time that requests spent in each stage.",
            ("stage",),
            registry=registry,
            buckets=DURATION_BUCKETS_S,
        )
        # Look up the labels once, because a look-up costs more than observing a value.
        self._observe = {stage: stages.labels(stage).observe for stage in Stage}
        self._problems = Counter(
            "rcml_problems",
            "Requests rejected with a problem, by kind. Unhandled exceptions count only as requests with status 500.",
            ("kind",),
            registry=registry,
        )
        self._refused_unseen = Counter(
            "rcml_requests_refused_unseen",
            "Requests refused because of overload before they were routed; no other counter includes them.",
            registry=registry,
        )
        self._key_file = Gauge(
            "rcml_key_file_valid",
            "Whether the keys in use are those of the key file: 0 if the file changed and cannot be used.",
            registry=registry,
            multiprocess_mode="min",
        )
        self._key_file.set(1)

    def _count_shadow_runs(self, registry: CollectorRegistry) -> None:
        self._shadowed = Counter(
            "rcml_shadow_questions",
            "Queries sampled for the shadow candidate, by outcome.",
            ("outcome",),
            registry=registry,
        )
        self._overlap = Histogram(
            "rcml_shadow_overlap",
            "Share of items that live and candidate results have in common.",
            registry=registry,
            buckets=OVERLAP_BUCKETS,
        )

    def read_engine(
        self,
        index: "Callable[[], Index | None]",
        queue_length: Callable[[], int],
        longest_call: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Set the functions that every scrape calls.

        `index` returns the served index, or None if no index is open. `queue_length` returns the number of jobs waiting
        for the neural network, and `longest_call` the seconds of its longest call.
        """
        self.index, self.queue_length, self.longest_call = index, queue_length, longest_call

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """Return a context manager that times a piece of work, even if it fails. It can be used only once."""
        if self._tracer is not None:
            return _TracedTiming(self._observe[stage], self._tracer.start_as_current_span(stage))
        return _Timing(self._observe[stage])

    def observe(self, stage: Stage, seconds: float) -> None:
        """Record a duration that was measured elsewhere, for example by a timer that started in another thread."""
        self._observe[stage](seconds)

    def began(self) -> None:
        """Count a request that has arrived. Call this on the event loop."""
        self.in_flight += 1

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has ended. Call this on the event loop, once for each call of `began`.

        `route` must be a route template, and `method` must come from a closed set.
        """
        self.in_flight -= 1
        labels = (route, method, status)
        if labels not in self._answered:
            self._answered[labels] = (self._requests.labels(*labels), self._durations.labels(*labels))
        requests, durations = self._answered[labels]
        requests.inc()
        durations.observe(seconds)

    def refused(self, kind: str) -> None:
        """Count a request that ended in a problem of this kind."""
        self._problems.labels(kind).inc()

    def refused_unseen(self, count: int) -> None:
        """Count requests that were refused as overload before the application saw them."""
        self._refused_unseen.inc(count)

    def key_file_read(self, valid: bool) -> None:
        """Record whether the key file could be used when it was last read."""
        self._key_file.set(int(valid))

    def shadowed(self, outcome: str) -> None:
        """Count a query of the traffic sample. `outcome` comes from a closed set (`shadow_run.py`)."""
        self._shadowed.labels(outcome).inc()

    def overlap(self, share: float) -> None:
        """Record the share of items that the live and the candidate results of a query have in common."""
        self._overlap.observe(share)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return all metrics as text, and the media type: OpenMetrics if the `Accept` header requests it."""
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # raised for a malformed version in the header
            encode, media_type = choose_encoder("")
        return encode(self._shown), media_type


def reserve_counts(folder: Path, number: int) -> None:
    """Create the files for the counts of worker `number` in `folder`, with all their room.

    Otherwise the kernel would kill a worker that counts something when the file system is full.

    Raises:
        OSError: There is no room.
    """
    for kind in ("counter", "gauge_min", "histogram"):
        with (folder / f"{kind}_{number}.db").open("xb") as file:
            file.write(bytes(COUNTS_BYTES))


def share_counts(folder: Path, number: int) -> None:
    """Let all metrics that are created afterwards keep their counts in `folder`, in the files of worker `number`."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


class _Timing:
    __slots__ = ("_observe", "_start")

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._observe(perf_counter() - self._start)


class _TracedTiming(_Timing):
    __slots__ = ("_span",)

    def __init__(self, observe: Callable[[float], None], span: "AbstractContextManager[Span]") -> None:
        super().__init__(observe)
        self._span = span

    def __enter__(self) -> None:
        self._span.__enter__()
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__()
        self._span.__exit__(*error)  # type: ignore[arg-type]


class _ServerCollector(Collector):
    """Collector of the state of all workers, and of facts about the served index in its current generation."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of the server, and those of the served index if an index is open."""
        metrics = self._metrics
        counters = metrics.counters
        yield InfoMetricFamily("rcml_build", "Version of the running server.", {"version": __version__})
        yield GaugeMetricFamily(
            "rcml_workers", "Processes that answer requests.", counters.total(Cell.SERVING)
        )
        yield GaugeMetricFamily("rcml_connections", "Open connections.", counters.total(Cell.CONNECTIONS))
        in_flight = metrics.in_flight + counters.others(Cell.IN_FLIGHT)
        yield GaugeMetricFamily("rcml_requests_in_flight", "Requests in progress.", in_flight)
        queued = metrics.queue_length() + counters.others(Cell.QUEUE)
        yield GaugeMetricFamily("rcml_queue_length", "Jobs waiting for the neural network.", queued)
        yield GaugeMetricFamily(
            "rcml_network_longest_call_seconds",
            "Longest time that one batch has held the network since the network was opened.",
            metrics.longest_call(),
        )
        index = metrics.index()
        if index is None:
            return
        snapshot = index.snapshot
        yield InfoMetricFamily(
            "rcml_index",
            "Generation, digest and checkpoint of the served index.",
            {
                "generation": snapshot.generation.path.name,
                "digest": snapshot.generation.manifest.digest,
                "checkpoint": index.checkpoint.manifest.digest,
            },
        )
        yield GaugeMetricFamily("rcml_items", "Items in the catalogue.", len(snapshot))
        yield GaugeMetricFamily(
            "rcml_damaged_pictures",
            "Stored pictures that are known to be damaged. A picture is checked when it is first read.",
            len(index.pictures.damaged),
        )
        yield GaugeMetricFamily("rcml_relations", "Relations in the index.", len(index.relations))
        yield GaugeMetricFamily(
            "rcml_overlay_changes",
            "Changes since the generation was built, not yet compacted.",
            snapshot.overlay.changes,
        )
