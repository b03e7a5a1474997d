"""Shadow runs: a candidate gets a share of the live questions, to see what would change before it does.

They are the questions of `POST /retrieve` that name items and relations by their ids. The candidate gets them after
they were answered, one at a time; questions that come faster than they are compared are dropped. No request waits.
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
from service.problems.errors import BusyError, NoShadowError
from service.schemas.admin import Latencies, Overlaps, ScoreShift, ShadowState
from service.telemetry.logs import logger
from service.telemetry.prometheus import Metrics

from .engine_swap import ArtifactNames, EngineLoader

MAX_WAITING_QUESTIONS = 32
"""Questions that wait to be compared; more are dropped."""


MAX_COMPARISONS = 10_000
"""Comparisons that the figures are of, the latest."""


@dataclass(frozen=True, slots=True)
class ShadowComparison:
    """One question, answered by both: scores and order are of the items that both found."""

    overlap: float
    identical: bool
    shifts: tuple[float, ...]
    """Score by the candidate less score by the engine that answered."""
    rank_correlation: float | None
    """Spearman's, where two items or more are common."""
    live_s: float
    candidate_s: float


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question that was answered, by an engine that is held."""

    engine: Engine
    question: Question
    snapshot: Snapshot
    found: Sequence[Found]
    seconds: float


class ShadowRun:
    """One candidate, as long as it is compared; used from one event loop.

    The figures are of one engine that answers: when another takes its place, they begin anew.
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
        """Queue a question that was answered, if the share has it; takes no time to speak of."""
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
        """The figures so far."""
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
        """Stop, and release all engines."""
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
            found = await self.candidate.retrieve(reader, asked.question)
            seconds = perf_counter() - begun
            compared = await self.candidate.run_in_thread(compare, asked, reader.snapshot, found, seconds)
            return "compared", compared
        except UnknownItemError:
            return "unknown-item", None
        except UnknownRelationError:
            return "unknown-relation", None
        except RcmlError:
            return "refused", None
        except Exception as error:  # whatever is wrong with the candidate is what was to be found out
            if not self.outcomes["failed"]:
                logger.warning("The candidate failed, and is asked on: %s", error, exc_info=True)
            return "failed", None

    def _count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1
        self._metrics.shadowed(outcome)


class Shadow:
    """The comparison in progress, if there is one; used from one event loop."""

    def __init__(self, loader: EngineLoader, metrics: Metrics) -> None:
        self._loader = loader
        self._metrics = metrics
        self._run: ShadowRun | None = None
        self._beginning: asyncio.Task[ShadowRun] | None = None

    @property
    def current(self) -> ShadowRun:
        """The comparison in progress.

        Raises:
            NoShadowError: there is none.
        """
        if self._run is None:
            raise NoShadowError
        return self._run

    async def begin(self, named: ArtifactNames, share: float) -> ShadowRun:
        """Open a candidate, and compare it on a share of the questions; goes on even if its caller is cancelled.

        Raises:
            BusyError: one is being compared already.
            NotServableError, NoRoomError: see `EngineLoader.open`.
        """
        if self._run is not None or (self._beginning is not None and not self._beginning.done()):
            raise BusyError(
                "A candidate is being compared already. End that by DELETE /admin/shadow before another."
            )
        self._beginning = asyncio.create_task(self._begin(named, share))
        return await asyncio.shield(self._beginning)

    def offer(
        self, engine: Engine, question: Question, snapshot: Snapshot, found: Sequence[Found], seconds: float
    ) -> None:
        """See `ShadowRun.offer`; only questions that need no network are compared."""
        if self._run is not None and _by_ids(question):
            self._run.offer(engine, question, snapshot, found, seconds)

    async def end(self) -> None:
        """Close the candidate.

        Raises:
            NoShadowError: there is none.
        """
        run, self._run = self.current, None
        await run.close()

    async def close(self) -> None:
        """End the run that is in progress or about to begin."""
        if self._beginning is not None:
            await asyncio.gather(self._beginning, return_exceptions=True)
        if self._run is not None:
            await self.end()

    async def _begin(self, named: ArtifactNames, share: float) -> ShadowRun:
        self._run = ShadowRun(await self._loader.open(named), share, self._metrics)
        return self._run


def compare(asked: _Asked, snapshot: Snapshot, found: Sequence[Found], seconds: float) -> ShadowComparison:
    """Compare what a candidate found with what was answered.

    The overlap is the share of common items in the longer of the two; of two empty ones it is 1.
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
    """Map item ids to scores, the best first."""
    items = snapshot.at([one.row for one in found])
    return {item.item_id: one.score for item, one in zip(items, found, strict=True)}


def _rank_correlation(common: Sequence[str], candidate: dict[str, float]) -> float | None:
    """Compute Spearman's correlation of the order in `common` and the order in `candidate`, which has them all."""
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
