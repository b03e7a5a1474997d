"""A small shop whose every count can be checked by hand, as the items and the graph of `rcml prepare`."""

from pathlib import Path
from typing import Any

import polars as pl

from model.data.prepare_config import PrepareConfig
from model.data.relation_graph import EDGE_SCHEMA, LOG_SCHEMA, Graph
from model.data.report.preparation_counts import count_prepared
from model.data.report.preparation_report import PreparationReport
from model.records import INTRA_RELATION, Item, Relation, Split

CATEGORIES = {
    "a": ("Books",),
    "b": ("Books", "Maps"),
    "c": ("Maps",),
    "d": ("Pans",),
    "e": ("Pans",),
    "f": (),
}

EDGES = [
    ("a", "b", "read", 9, 0.9, "train"),
    ("a", "c", "read", 5, 0.5, "train"),
    ("b", "c", "read", 3, 0.3, "train"),
    ("a", "b", "cook", 4, 0.4, "train"),
    ("d", "e", "cook", 7, 0.7, "test"),
]

LOG = [
    (0, 0, "read"),
    (0, 1, "read"),
    (0, 2, "read"),
    (1, 0, "read"),
    (2, 3, "cook"),
    (2, 4, "cook"),
    (2, 1, "cook"),
]

COUNTS = {
    "interactions": 20, "not_rated": 2, "low_rated": 3, "of_unknown_items": 4, "without_repeats": 10,
    "of_latest_items": 9, "kept_interactions": 7, "kept_users": 3, "kept_items": 5, "edges_across_splits": 3,
}  # fmt: skip


def goods(**titles: str) -> list[Item]:
    """Return the items a to f; f has no picture."""
    return [
        Item(
            name,
            titles.get(name, f"Title {name}"),
            "",
            own,
            "text",
            "" if name == "f" else f"pictures/{name}.png",
        )
        for name, own in CATEGORIES.items()
    ]


def graph(*, ready_made: bool = False, **changes: Any) -> Graph:
    """Return the relations read and cook with their edges."""
    options: dict[str, Any] = {
        "relations": [
            INTRA_RELATION,
            Relation("read", "Read *together*."),
            Relation("cook", "Used to cook."),
        ],
        "edges": pl.DataFrame(EDGES, EDGE_SCHEMA, orient="row"),
        "edges_across": pl.DataFrame([("a", "d", "cook", 3, 0.1, "test")], EDGE_SCHEMA, orient="row"),
        "counts": {} if ready_made else COUNTS,
        "users": {} if ready_made else {"read": 2, "cook": 1},
        "log": None if ready_made else pl.DataFrame(LOG, LOG_SCHEMA, orient="row"),
    }
    return Graph(**{**options, **changes})


def options(**chosen: Any) -> PrepareConfig:
    """Return options of `rcml prepare`."""
    return PrepareConfig(
        items=Path("items.jsonl"), interactions=Path("log.csv"), out=Path("prepared"), **chosen
    )


def counted(
    *, ready_made: bool = False, titles: dict[str, str] | None = None, **changes: Any
) -> PreparationReport:
    """Return the report of the shop; the items d and e are held out."""
    splits = [Split.TRAIN, Split.TRAIN, Split.TRAIN, Split.TEST, Split.TEST, Split.TRAIN]
    own = graph(ready_made=ready_made, **changes)
    return count_prepared(goods(**(titles or {})), splits, own, {}, options(min_rating=4))
