"""What Prometheus reads at `GET /metrics`: how many requests, how long each stage took, what is served.

Every label comes from a closed set: routes by their templates, stages and problems by their names. An id or a path
never is one, so the number of time series is bounded whatever clients send. One `Metrics` belongs to one
application, with a registry of its own. Whoever does a stage's work times it:

    with metrics.stage(Stage.SEARCH):
        ...

Any thread may. With tracing on, the same line makes the stage's span, a child of its request's.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import StrEnum
from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from model import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from indexes.index import Index


class Stage(StrEnum):
    """What the time of a request goes into."""

    FETCH = "fetch"
    """getting a picture from its URL"""
    DECODE = "decode"
    """from bytes to a picture"""
    ENCODE = "encode"
    """the network, waiting for it included"""
    SEARCH = "search"
    """the index, waiting for it included"""


DURATION_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: from an answer that was kept ready to one at its deadline."""

OVERLAP_BUCKETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999, 1.0)
"""Shares: what is above the last but one is all."""


class Metrics:
    """All that is counted in one application."""

    def __init__(self, tracer: "Tracer | None" = None) -> None:
        """Count from zero; with a `tracer`, stages make spans too."""
        self._tracer = tracer
        self._in_flight = 0
        self._index: Callable[[], Index | None] = lambda: None
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(_IndexCollector(self))
        labels = ("route", "method", "status")
        self._requests = Counter("rcml_requests", "Requests answered.", labels, registry=registry)
        self._durations = Histogram(
            "rcml_request_duration_seconds",
            "From the arrival of a request's head to the end of its answer.",
            labels,
            registry=registry,
            buckets=DURATION_BUCKETS_S,
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        stages = Histogram(
            "rcml_stage_duration_seconds",
            "What the time of requests went into.",
            ("stage",),
            registry=registry,
            buckets=DURATION_BUCKETS_S,
        )
        # Bound once: to look a label up costs more than to observe.
        self._observe = {stage: stages.labels(stage).observe for stage in Stage}
        self._problems = Counter(
            "rcml_problems",
            "Requests refused, by the kind of problem; a failure is a request of status 500.",
            ("kind",),
            registry=registry,
        )
        self._shadowed = Counter(
            "rcml_shadow_questions",
            "Questions put to the candidate too, by what came of it.",
            ("outcome",),
            registry=registry,
        )
        self._overlap = Histogram(
            "rcml_shadow_overlap",
            "Share of the items of an answer that the candidate found too.",
            registry=registry,
            buckets=OVERLAP_BUCKETS,
        )
        in_flight = Gauge("rcml_requests_in_flight", "Requests being answered now.", registry=registry)
        in_flight.set_function(lambda: self._in_flight)
        self._queue = Gauge(
            "rcml_queue_length", "New items and relations that wait for the network now.", registry=registry
        )

    def read_engine(self, index: "Callable[[], Index | None]", queue_length: Callable[[], int]) -> None:
        """Take the served index (None: it is not open) and the queue's length from these, at each reading."""
        self._index = index
        self._queue.set_function(queue_length)

    @property
    def index(self) -> "Index | None":
        """The index that is served; None before it is open."""
        return self._index()

    def stage(self, stage: Stage) -> AbstractContextManager[None]:
        """Time a piece of work, whether it succeeds or not; each use needs a new one."""
        if self._tracer is not None:
            return _TracedTiming(self._observe[stage], self._tracer.start_as_current_span(stage))
        return _Timing(self._observe[stage])

    def observe(self, stage: Stage, seconds: float) -> None:
        """Count a time that was measured elsewhere, such as one that began in another thread."""
        self._observe[stage](seconds)

    def began(self) -> None:
        """Count a request that arrived; called on the event loop."""
        self._in_flight += 1

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered; called on the event loop once for each that began.

        `route` must be a template, and `method` one of a closed set.
        """
        self._in_flight -= 1
        labels = (route, method, status)
        if labels not in self._answered:
            self._answered[labels] = (self._requests.labels(*labels), self._durations.labels(*labels))
        requests, durations = self._answered[labels]
        requests.inc()
        durations.observe(seconds)

    def refused(self, kind: str) -> None:
        """Count a request that ended in a problem of this kind."""
        self._problems.labels(kind).inc()

    def shadowed(self, outcome: str) -> None:
        """Count a question that a candidate got, or that was dropped; `outcome` is of a closed set (`shadow.py`)."""
        self._shadowed.labels(outcome).inc()

    def overlap(self, share: float) -> None:
        """Observe the share of items that an answer and a candidate's had in common."""
        self._overlap.observe(share)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Write all metrics as text; returns it with its media type: OpenMetrics if the `Accept` header asks for it."""
        try:
            encode, media_type = choose_encoder(accept)
        except (TypeError, ValueError):  # it fails on a version that is no version
            encode, media_type = choose_encoder("")
        return encode(self._registry), media_type


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


class _IndexCollector(Collector):
    """Facts of the served index, read at each request, so that a new generation takes the place of the old one."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("rcml_build", "The program that answers.", {"version": __version__})
        index = self._metrics.index
        if index is None:
            return
        snapshot = index.snapshot
        yield InfoMetricFamily(
            "rcml_index",
            "What it answers from.",
            {
                "generation": snapshot.generation.path.name,
                "digest": snapshot.generation.manifest.digest,
                "checkpoint": index.checkpoint.manifest.digest,
            },
        )
        yield GaugeMetricFamily("rcml_items", "Items of the catalogue.", len(snapshot))
        yield GaugeMetricFamily("rcml_relations", "Relations known by their ids.", len(index.relations))
        yield GaugeMetricFamily(
            "rcml_overlay_changes",
            "Changes since the generation was made, not yet folded into another.",
            snapshot.overlay.changes,
        )
