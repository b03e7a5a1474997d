"""Answers to `POST /retrieve` as JSON, and a fast way to put together those that the precomputed table contains.

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
from service.engine.engine import MAX_READ_ON_LOOP, Engine
from service.engine.item_json import version
from service.schemas.fields import ItemId, RelationId, RelationSummary, Request
from service.schemas.retrieve import MAX_RESULT_DEPTH, MAX_RESULTS, RESULTS_PER_COST
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


def plain_question(body: bytes | bytearray) -> PlainQuestion | None:
    """Parse a body that is a `PlainQuestion` and costs no more than one request; return None for any other body."""
    try:
        asked = PlainQuestion.model_validate_json(body)
    except ValidationError:
        return None
    return asked if asked.k <= RESULTS_PER_COST else None


def turn_of(asked: PlainQuestion, engine: Engine) -> int:
    """Return the results that the turn for `precomputed_answer` counts (`loop_turns.py`)."""
    # Changes since the table was written are searched, which takes as long as in the general way.
    return asked.k if engine.index.snapshot.overlay.changes else -(-asked.k // STORED_RESULTS)


def precomputed_answer(asked: PlainQuestion, engine: Engine, metrics: Metrics, begun: float) -> bytes | None:
    """Answer a question from the precomputed table; `begun` is when it arrived, by `perf_counter`.

    Return None if the table lacks the answer, if many of its items must be read first, or if the question is invalid.
    The general way then answers, or raises the error.
    """
    reader = engine.index.reader()
    snapshot = reader.snapshot
    start, stop = asked.cursor, asked.cursor + asked.k
    try:
        best = reader.precomputed_entries(asked.item_id, asked.relation, asked.similarity, start, stop)
    except RcmlError:
        return None
    if best is None or (best and best[-1][1] < asked.min_score):
        return None
    spent = perf_counter() - begun
    rows = [row for row, _ in best]
    shown = [*rows, snapshot.row(asked.item_id)]
    items = engine.item_json.cached(snapshot, shown)
    if items is None:
        if len(engine.item_json.missing(snapshot, rows)) > MAX_READ_ON_LOOP:
            return None
        items = engine.item_json.summaries(snapshot, shown)
    metrics.observe(Stage.SEARCH, spent)
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
