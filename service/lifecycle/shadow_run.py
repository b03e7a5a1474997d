"""Shadow runs: a candidate processes a share of the live traffic, which shows what a reload would change.

The traffic sample consists of `POST /retrieve` queries that name items and relations by ID. The candidate processes
them one at a time, each after the serving engine has answered it. Queries that arrive faster than the candidate
processes them are dropped. No request waits for the candidate.
"""

import asyncio
import weakref
from collections import Counter, deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter

import numpy as np

from indexes.live.snapshot import Snapshot
from indexes.search.retrieve import Found, KnownItems, Question
from model.errors import RcmlError, UnknownItemError, UnknownRelationError
from service.engine.engine import Engine
from service.engine.item_json import version
from service.problems.errors import BusyError, NoShadowError, OneProcessError
from service.schemas.admin import Latencies, Overlaps, ScoreShift, ShadowState
from service.telemetry.logs import logger
from service.telemetry.prometheus import Metrics

from .engine_swap import ArtifactNames, EngineLoader

MAX_WAITING_QUESTIONS = 32
"""Maximum number of queries that wait to be compared. Further queries are dropped."""


MAX_COMPARISONS = 10_000
"""Number of latest comparisons that the figures are computed from."""


@dataclass(frozen=True, slots=True)
class ShadowComparison:
    """Comparison of the serving engine and the candidate on one query.

    Score shifts and rank correlation are computed from the items that both engines found.
    """

    overlap: float
    identical: bool
    shifts: tuple[float, ...]
    """Candidate score minus live score of each common item."""
    rank_correlation: float | None
    """Spearman's rank correlation; None if fewer than two items are common."""
    live_s: float
    candidate_s: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """An answered query and the engine that answered it. The engine is held until the comparison is done."""

    engine: Engine
    question: Question
    snapshot: Snapshot
    found: Sequence[Found]
    seconds: float


class ShadowRun:
    """One shadow run of a candidate. Use it from one event loop.

    The figures compare the candidate with one serving engine. They are reset when a reload replaces that engine.
    """

    def __init__(self, candidate: Engine, share: float, metrics: Metrics) -> None:
        self.candidate = candidate
        self.share = share
        self.since = datetime.now(UTC)
        self.against: str | None = None
        self.outcomes: Counter[str] = Counter()
        self.compared: deque[ShadowComparison] = deque(maxlen=MAX_COMPARISONS)
        self._metrics = metrics
        self._answering: weakref.ref[Engine] | None = None
        self._due = 0.0
        self._queue: asyncio.Queue[_Asked] = asyncio.Queue(MAX_WAITING_QUESTIONS)
        self._task = asyncio.create_task(self._work())

    def offer(
        self, engine: Engine, question: Question, snapshot: Snapshot, found: Sequence[Found], seconds: float
    ) -> None:
        """Queue an answered query if it falls into the traffic sample. This takes negligible time."""
        if self._answering is None or self._answering() is not engine:
            self._answering = weakref.ref(engine)
            self.outcomes.clear()
            self.compared.clear()
        self.against = version(snapshot)
        self._due += self.share
        if self._due < 1:
            return
        self._due -= 1
        if self._queue.full():
            self._count("dropped")
            return
        engine.hold()
        self._queue.put_nowait(_Asked(engine, question, snapshot, found, seconds))

    @property
    def state(self) -> ShadowState:
        """Figures so far."""
        outcomes, compared = self.outcomes, self.compared
        failed = {
            name: number
            for name, number in sorted(outcomes.items())
            if name not in ("compared", "dropped") and number
        }
        put = outcomes["compared"] + sum(failed.values())
        correlations = [one.rank_correlation for one in compared if one.rank_correlation is not None]
        return ShadowState(
            version=version(self.candidate.index.snapshot),
            against=self.against,
            share=self.share,
            since=self.since,
            compared=outcomes["compared"],
            dropped=outcomes["dropped"],
            failed=failed,
            error_share=sum(failed.values()) / put if put else None,
            overlap=_overlaps(compared),
            score_shift=_score_shift([shift for one in compared for shift in one.shifts]),
            rank_correlation=float(np.mean(correlations)) if correlations else None,
            latency=_latencies(compared),
        )

    async def close(self) -> None:
        """Stop the run and release all engines."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while not self._queue.empty():
            self._queue.get_nowait().engine.release()
        self.candidate.release()

    async def _work(self) -> None:
        while True:
            asked = await self._queue.get()
            try:
                outcome, compared = await self._outcome(asked)
            finally:
                asked.engine.release()
            if self._answering is not None and self._answering() is asked.engine:
                self._count(outcome)
                if compared is not None:
                    self.compared.append(compared)
                    self._metrics.overlap(compared.overlap)

    async def _outcome(self, asked: _Asked) -> tuple[str, ShadowComparison | None]:
        begun = perf_counter()
        try:
            reader = self.candidate.index.reader()
            found, _ = await self.candidate.retrieve(reader, asked.question)
            seconds = perf_counter() - begun
            compared = await self.candidate.run_in_thread(compare, asked, reader.snapshot, found, seconds)
            return "compared", compared
        except UnknownItemError:
            return "unknown-item", None
        except UnknownRelationError:
            return "unknown-relation", None
        except RcmlError:
            return "refused", None
        except Exception as error:  # a shadow run has to report every kind of failure
            if not self.outcomes["failed"]:
                logger.warning("The candidate failed, but the shadow run continues: %s", error, exc_info=True)
            return "failed", None

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._metrics.shadowed(outcome)


class Shadow:
    """Manager of the current shadow run, if any. Use it from one event loop."""

    def __init__(self, loader: EngineLoader, metrics: Metrics, workers: int = 1) -> None:
        self._loader = loader
        self._workers = workers
        self._metrics = metrics
        self._run: ShadowRun | None = None
        self._beginning: asyncio.Task[ShadowRun] | None = None

    @property
    def is_running(self) -> bool:
        """Whether there is a shadow run, to which answered queries are offered."""
        return self._run is not None

    @property
    def current(self) -> ShadowRun:
        """The current shadow run.

        Raises:
            NoShadowError: there is no shadow run.
        """
        if self._run is None:
            raise NoShadowError
        return self._run

    async def begin(self, named: ArtifactNames, share: float) -> ShadowRun:
        """Open a candidate and start a shadow run on a share of the traffic.

        The start continues even if its caller is cancelled.

        Raises:
            OneProcessError: the server has several workers.
            BusyError: a shadow run is already in progress.
            NotServableError, NoRoomError, UnreachableError, StorageError: see `EngineLoader.open`.
        """
        if self._workers > 1:
            raise OneProcessError("A shadow run", self._workers)
        if self._run is not None or (self._beginning is not None and not self._beginning.done()):
            raise BusyError(
                "A shadow run is already in progress. End it with DELETE /admin/shadow before you start another."
            )
        self._beginning = asyncio.create_task(self._begin(named, share))
        return await asyncio.shield(self._beginning)

    def offer(
        self, engine: Engine, question: Question, snapshot: Snapshot, found: Sequence[Found], seconds: float
    ) -> None:
        """Offer an answered query to the shadow run, if there is one (see `ShadowRun.offer`).

        Skip queries that do not name their items and relations by ID.
        """
        if self._run is not None and _by_ids(question):
            self._run.offer(engine, question, snapshot, found, seconds)

    async def end(self) -> None:
        """End the shadow run and close the candidate.

        Raises:
            NoShadowError: there is no shadow run.
        """
        run, self._run = self.current, None
        await run.close()

    async def close(self) -> None:
        """End the shadow run that is in progress or starting."""
        if self._beginning is not None:
            await asyncio.gather(self._beginning, return_exceptions=True)
        if self._run is not None:
            await self.end()

    async def _begin(self, named: ArtifactNames, share: float) -> ShadowRun:
        self._run = ShadowRun(await self._loader.open(named), share, self._metrics)
        return self._run


def compare(asked: _Asked, snapshot: Snapshot, found: Sequence[Found], seconds: float) -> ShadowComparison:
    """Compare the candidate's results with the live results of a query.

    The overlap is the number of items that are in both result lists, divided by the length of the longer list. It is 1
    if both lists are empty.
    """
    live = _scores(asked.snapshot, asked.found)
    candidate = _scores(snapshot, found)
    common = [item_id for item_id in live if item_id in candidate]
    longer = max(len(live), len(candidate))
    return ShadowComparison(
        overlap=len(common) / longer if longer else 1.0,
        identical=[*live] == [*candidate],
        shifts=tuple(candidate[item_id] - live[item_id] for item_id in common),
        rank_correlation=_rank_correlation(common, candidate),
        live_s=asked.seconds,
        candidate_s=seconds,
    )


def _scores(snapshot: Snapshot, found: Sequence[Found]) -> dict[str, float]:
    """Map item IDs to scores, best first."""
    items = snapshot.at([one.row for one in found])
    return {item.item_id: one.score for item, one in zip(items, found, strict=True)}


def _rank_correlation(common: Sequence[str], candidate: dict[str, float]) -> float | None:
    """Compute Spearman's rank correlation of the order of `common` and the order of the same items in `candidate`."""
    count = len(common)
    if count < 2:
        return None
    wanted = frozenset(common)
    ranks = {item_id: rank for rank, item_id in enumerate(one for one in candidate if one in wanted)}
    distance = np.array([rank - ranks[item_id] for rank, item_id in enumerate(common)], np.float64)
    return float(1 - 6 * (distance**2).sum() / (count * (count**2 - 1)))


def _by_ids(question: Question) -> bool:
    return (
        isinstance(question.query, KnownItems)
        and bool(question.relations)
        and all(isinstance(one.relation, str) for one in question.relations)
    )


def _overlaps(compared: Collection[ShadowComparison]) -> Overlaps | None:
    if not compared:
        return None
    shares = [one.overlap for one in compared]
    p5, p50 = np.percentile(shares, [5, 50])
    identical = float(np.mean([one.identical for one in compared]))
    return Overlaps(mean=float(np.mean(shares)), p5=p5, p50=p50, identical=identical)


def _score_shift(shifts: Sequence[float]) -> ScoreShift | None:
    if not shifts:
        return None
    return ScoreShift(mean=float(np.mean(shifts)), p95=np.percentile(np.abs(shifts), 95))


def _latencies(compared: Collection[ShadowComparison]) -> Latencies | None:
    if not compared:
        return None
    live = float(np.median([one.live_s for one in compared]))
    candidate = float(np.median([one.candidate_s for one in compared]))
    ratio = round(candidate / live, 3) if live else None
    return Latencies(live_ms=round(live * 1000, 4), candidate_ms=round(candidate * 1000, 4), ratio=ratio)
