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

from indexes.search.retrieve import Found
from model.errors import RcmlError
from model.records import Relation
from model.similarity import Similarity
from service.engine.item_json import version
from service.schemas.fields import RelationSummary
from service.schemas.retrieve import MAX_RESULT_DEPTH, SUMMARY, RetrieveRequest
from service.telemetry.prometheus import Stage

from .context import RequestContext

CACHED_FORMS = 1_024
"""Maximum number of cached forms of answers, at about 1.5 KB each for ten results."""

_GAP = Fragment(b"\0")
"""Place that is filled later. JSON contains no NUL, because control characters are escaped (RFC 8259, section 7)."""

_TEXT_GAP = Fragment(b'"\0"')


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
    """Return the answer to a question about items and relations of the index; `search` and `took_ms` in ms."""
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
        "timings": {"fetch": 0.0, "encode": 0.0, "search": search},
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


async def precomputed_answer(asked: RetrieveRequest, query: RequestContext) -> bytes | None:
    """Answer a plain question (`RetrieveRequest.is_plain`) from the precomputed table.

    Return None if the table does not contain the answer, if the question is invalid, or if a shadow run or a trace
    needs what only the general way produces. The general way then answers or raises the error.

    Raises:
        OverloadedError: See `Engine.items`.
    """
    engine, metrics = query.engine, query.metrics
    if query.shadow.is_running or metrics.traced:
        return None
    begun = perf_counter()
    reader = engine.index.reader()
    snapshot = reader.snapshot
    assert asked.item_id is not None
    assert isinstance(asked.relation, str)
    start, stop = asked.cursor, asked.cursor + asked.k
    try:
        best = reader.precomputed_entries(asked.item_id, asked.relation, asked.similarity, start, stop)
    except RcmlError:
        return None
    if best is None:
        return None
    rows, scores = [row for row, _ in best], [score for _, score in best]
    if scores and scores[-1] < asked.min_score:
        return None
    try:
        await engine.turns.take(asked.k)
    finally:
        query.record(Stage.SEARCH, begun)
    row = snapshot.row(asked.item_id)
    items = engine.item_json.cached(snapshot, [*rows, row])
    if items is None:
        items = await engine.items(snapshot, rows, SUMMARY)
        items += engine.item_json.summaries(snapshot, [row])
    template = form(
        snapshot.relation(asked.relation).relation, asked.similarity, asked.k, asked.cursor, len(rows)
    )
    numbers = orjson.dumps([*scores, query.milliseconds(Stage.SEARCH), query.took_ms])
    *scored, search, took = numbers[1:-1].split(b",")
    *items, item = items
    filled = [b""] * (2 * len(rows))
    filled[::2], filled[1::2] = scored, items
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
