"""Prepared catalogue with a log and with edges between training and held-out items."""

import shutil
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import polars as pl

from model.artifact import PICTURES, write_artifact
from model.checkpoint.checkpoint import RecordedOptions
from model.data.prepared_data import Prepared
from model.data.relation_graph import EDGE_SCHEMA
from model.records import Edge, Split

USERS_OF_A_GROUP = 3


def with_log(source: Path, out: Path) -> Prepared:
    """Copy the prepared catalogue in `source` to `out`, and add a log and the edges across splits.

    For each colour and each shape, three users take all its items: users of the relation `colour` or `shape`.
    """
    prepared = Prepared.open(source)
    groups: dict[tuple[str, str], list[int]] = {}
    for row, item in enumerate(prepared.items):
        colour, shape, _ = item.title.split()
        groups.setdefault(("colour", colour), []).append(row)
        groups.setdefault(("shape", shape), []).append(row)
    log = [
        {"user": USERS_OF_A_GROUP * group + user, "item": row, "relation_id": relation}
        for group, ((relation, _), rows) in enumerate(groups.items())
        for user in range(USERS_OF_A_GROUP)
        for row in rows
    ]
    across = [
        asdict(edge)
        for (relation, _), rows in groups.items()
        for pair in combinations(rows, 2)
        if (edge := _across(prepared, pair, relation)) is not None
    ]
    options = RecordedOptions.model_validate_json((source / "config.json").read_bytes())
    with write_artifact(out, "prepared", options, prepared.manifest.parents) as draft:
        for path in source.iterdir():
            if path.name not in ("manifest.json", "config.json", PICTURES):
                shutil.copy(path, draft.path / path.name)
        shutil.copytree(source / PICTURES, draft.path / PICTURES)
        pl.DataFrame(log).write_parquet(draft.path / "log.parquet")
        pl.DataFrame(across, schema=EDGE_SCHEMA).write_parquet(draft.path / "edges_across.parquet")
    return Prepared.open(out)


def _across(prepared: Prepared, pair: tuple[int, int], relation: str) -> Edge | None:
    held_out = [row for row in pair if prepared.splits[row] != Split.TRAIN]
    if len(held_out) != 1:
        return None
    a, b = sorted(prepared.items[row].item_id for row in pair)
    return Edge(a, b, relation, 3, 0.5, prepared.splits[held_out[0]])
