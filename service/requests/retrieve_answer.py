"""Answers to `POST /retrieve` as JSON, and the short way to those that the precomputed table contains.

Answers from the table are most of the traffic. Under one relation they differ only in the version, the query, the
scores and items of the results, and the times. Each form of such an answer is serialised once, with gaps in these
places. The gaps are then filled with numbers and with the cached JSON of items, without an object per result.
"""

from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

import orjson
from orjson import Fragment
from pydantic import Field, ValidationError

from indexes.search.retrieve import Found
from model.errors import RcmlError
from model.records import Relation
from model.similarity import Similarity
from service.engine.engine import Engine
from service.engine.item_json import version
from service.lifecycle.app_state import State
from service.schemas.fields import ItemId, RelationId, RelationSummary, Request
from service.schemas.retrieve import MAX_RESULT_DEPTH, MAX_RESULTS, RESULTS_PER_COST, SUMMARY
from service.telemetry.prometheus import Metrics, Stage

CACHED_FORMS = 1_024
"""Maximum number of cached forms of answers, at about 1.5 KB each for ten results."""

STORED_RESULTS = 4
"""Number of results from stored bytes that are put together in the time of one result from objects."""

_GAP = Fragment(b"\0")
"""Place that is filled later. JSON contains no NUL, because control characters are escaped (RFC 8259, section 7)."""

_TEXT_GAP = Fragment(b'"\0"')


class PlainQuestion(Request):
    """Most common form of a `RetrieveRequest`: one item, one indexed relation, a page, and no filters.

    A body that is valid for this model is valid for `RetrieveRequest`, and means the same.
    """

    item_id: ItemId
    relation: RelationId
    k: int = Field(10, ge=1, le=MAX_RESULTS)
    cursor: int = Field(0, ge=0, le=MAX_RESULT_DEPTH)
    similarity: Similarity = Similarity.AVG
    min_score: float = Field(-1.0, ge=-1, le=1)


def next_cursor(k: int, cursor: int, found: int) -> int | None:
    """Return the `cursor` of the page after one with `found` results, or None if that was the last page."""
    return cursor + k if found == k and cursor + k < MAX_RESULT_DEPTH else None


def plain_answer(
    version: Any,
    query: Any,
    relation: Any,
    similarity: Similarity,
    results: list[dict[str, Any]],
    next_cursor: int | None,
    search: Any,
    took_ms: Any,
) -> dict[str, Any]:
    """Return the answer to a question without a filter, about items and relations of the index.

    `search` and `took_ms` are in milliseconds.
    """
    return {
        "version": version,
        "query": query,
        "relation": relation,
        "similarity": similarity,
        "how": "indexed",
        "familiarity": [],
        "fallback": None,
        "results": results,
        "next_cursor": next_cursor,
        "timings": {"fetch": 0.0, "encode": 0.0, "search": search, "filter": None},
        "took_ms": took_ms,
    }


def results(found: Sequence[Found], items: Sequence[Any], cursor: int) -> list[dict[str, Any]]:
    """Return the results of an answer that skips the first `cursor` ones; `items` are their items as JSON."""
    return [
        {
            "rank": rank,
            "score": one.score,
            "relation": one.relation,
            "promoted": one.promoted,
            "fallback": one.fallback,
            "item": item,
        }
        for rank, (one, item) in enumerate(zip(found, items, strict=True), start=cursor + 1)
    ]


async def precomputed_answer(state: State, body: bytes) -> bytes | None:
    """Answer a body that is a `PlainQuestion` from the precomputed table.

    Return None if the body is anything else, if the question is invalid, if the table lacks the answer, or if a shadow
    run needs what only the general way produces. The general way then answers, or raises the error.

    Raises:
        OverloadedError: See `Engine.items`.
    """
    begun = perf_counter()
    if state["shadow"].is_running:
        return None
    try:
        asked = PlainQuestion.model_validate_json(body)
    except ValidationError:
        return None
    holder = state["engine_holder"]
    if (
        asked.k > RESULTS_PER_COST or not holder.ready
    ):  # a larger question costs more than one, which the route charges
        return None
    with holder.held() as engine:
        return await _filled(asked, engine, state["metrics"], begun)


async def _filled(asked: PlainQuestion, engine: Engine, metrics: Metrics, begun: float) -> bytes | None:
    """Fill the form of the answer, or return None; see `precomputed_answer`."""
    reader = engine.index.reader()
    snapshot = reader.snapshot
    start, stop = asked.cursor, asked.cursor + asked.k
    # Changes since the table was written are searched, which takes as long as in the general way.
    await engine.turns.take(asked.k if snapshot.overlay.changes else -(-asked.k // STORED_RESULTS))
    try:
        best = reader.precomputed_entries(asked.item_id, asked.relation, asked.similarity, start, stop)
    except RcmlError:
        return None
    if best is None or (best and best[-1][1] < asked.min_score):
        return None
    spent = perf_counter() - begun
    metrics.observe(Stage.SEARCH, spent)
    rows = [row for row, _ in best]
    own = snapshot.row(asked.item_id)
    items = engine.item_json.cached(snapshot, [*rows, own])
    if items is None:
        items = await engine.items(snapshot, rows, SUMMARY)
        items += engine.item_json.summaries(snapshot, [own])
    template = form(
        snapshot.relation(asked.relation).relation, asked.similarity, asked.k, asked.cursor, len(best)
    )
    times = round(spent * 1000, 3), round((perf_counter() - begun) * 1000, 3)
    *scores, search, took = orjson.dumps([*(score for _, score in best), *times])[1:-1].split(b",")
    *items, item = items
    filled = [b""] * (2 * len(best))
    filled[::2], filled[1::2] = scores, items
    return template % (version(snapshot).encode(), item, *filled, search, took)


@lru_cache(maxsize=CACHED_FORMS)
def form(relation: Relation, similarity: Similarity, k: int, cursor: int, found: int) -> bytes:
    """Return the JSON of an answer with `found` results as a format.

    It takes the version, the query, the score and the item of each result, and the two times.
    """
    gap: Any = _GAP
    hits = [Found(0, gap, relation.relation_id)] * found
    answer = plain_answer(
        _TEXT_GAP,
        _GAP,
        RelationSummary.of(relation).model_dump(),
        similarity,
        results(hits, [_GAP] * found, cursor),
        next_cursor(k, cursor, found),
        _GAP,
        _GAP,
    )
    return orjson.dumps(answer).replace(b"%", b"%%").replace(b"\0", b"%b")
