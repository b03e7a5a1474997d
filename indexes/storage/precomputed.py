"""Precomputed answers: top-k tables of the best items for every item under each relation.

    answers/
      003.AVG.npy   for each catalogue row, the 100 best other items: `row` (int32), `score` (float32), best first
      report.json   recall of the tables that are not exact, by the name of their file; absent if all are exact

A table row has fewer entries if there are fewer items, or if a compaction removed entries. Such a row is padded
with row number -1. Scores are not rounded to half precision, because items that are added later are merged by score
and must get the right rank. `table_maker.py` computes the tables.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from pydantic import BaseModel, ConfigDict, RootModel

from indexes.vectors.contract import Neighbours, VectorIndex
from model.console import progress_bar
from model.durable_files import link_or_copy
from model.plain_file import read_model
from model.similarity import Similarity

from .arrays import map_array, save_array
from .table_maker import ENTRY, TableMaker

ANSWERS_DIR = "answers"
"""Name of the folder within a generation that contains the tables."""

REPORT_FILE = "report.json"


class TableRecall(BaseModel):
    """Recall of a table whose answers an ANN index found: the share of the 10 and of all best items that it has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recall_at_10: float
    recall: float


class TablesReport(RootModel[dict[str, TableRecall]]):
    """Content of `report.json`: an entry for each table that is not exact."""


class PrecomputedAnswers:
    """Top-k tables of a generation, mapped into memory on first use; safe to use from many threads.

    `names` are the files in `folder` that the manifest lists. No other table is read.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._names = frozenset(names)
        self._opened: dict[str, ndarray] = {}
        self._opening = Lock()

    @property
    def similarities(self) -> tuple[Similarity, ...]:
        """Similarities that have tables."""
        return tuple(one for one in Similarity if _name(0, one) in self._names)

    @cached_property
    def recalls(self) -> dict[str, TableRecall]:
        """Recall of each table that is not exact, by the name of its file.

        Raises:
            ArtifactError: the report is damaged.
        """
        if REPORT_FILE not in self._names:
            return {}
        return read_model(TablesReport, self._folder / REPORT_FILE).root

    def best(
        self, relation: int, similarity: Similarity, row: int, k: int, without: frozenset[int] = frozenset()
    ) -> Neighbours | None:
        """Look up the `k` best items for the item at `row`, or all items if there are fewer.

        Rows in `without` are left out. The result is None if there is no table, or if the table does not contain enough
        entries.
        """
        table = self.table(relation, similarity)
        if table is None:
            return None
        entries = table[row]
        rows, scores = entries["row"], entries["score"]
        if not without and k <= len(rows) and rows[k - 1] >= 0:
            return Neighbours(rows[:k].astype(np.int64), scores[:k])
        if without:
            kept = [place for place, one in enumerate(rows.tolist()) if one not in without]
            rows, scores = rows[kept], scores[kept]
        there = int((rows[:k] >= 0).sum())
        whole = table.shape[1] >= len(table) - 1 and (not len(rows) or rows[-1] >= 0)
        if there < k and not whole:
            return None
        return Neighbours(rows[:there].astype(np.int64), np.asarray(scores[:there]))

    def entries(
        self, relation: int, similarity: Similarity, row: int, start: int, stop: int
    ) -> list[tuple[int, float]] | None:
        """Return the entries `start` to `stop` (excluded) for the item at `row`; None if there are not as many."""
        table = self.table(relation, similarity)
        if table is None or stop > table.shape[1]:
            return None
        entries: list[tuple[int, float]] = table[row, start:stop].tolist()
        return entries if entries[-1][0] >= 0 else None

    def table(self, relation: int, similarity: Similarity) -> ndarray | None:
        """Map the table of a relation and similarity, with one row per item; None if there is no table."""
        name = _name(relation, similarity)
        if name not in self._names:
            return None
        if name not in self._opened:
            with self._opening:
                if name not in self._opened:
                    self._opened[name] = map_array(self._folder / name, ENTRY, 2)
        return self._opened[name]

    def copy(self, folder: Path, positions: Mapping[int, int]) -> None:
        """Take over the tables into `folder`, which is created if there are any tables.

        `positions` has the same meaning as in `faiss_backend.Carried`.
        """
        recalls: dict[str, TableRecall] = {}
        for similarity in self.similarities:
            folder.mkdir(exist_ok=True)
            for now, then in positions.items():
                link_or_copy(self._folder / _name(then, similarity), folder / _name(now, similarity))
                if (known := self.recalls.get(_name(then, similarity))) is not None:
                    recalls[_name(now, similarity)] = known
        _add_to_report(folder, recalls)


@dataclass(frozen=True)
class PreviousAnswers:
    """Tables of the previous generation, and the new row of each of its items; -1 if the item was changed or deleted.

    The remaining items keep their order and come before all new items.
    """

    answers: PrecomputedAnswers
    renumbered: Int64[ndarray, " before"]

    def table(self, relation: int, similarity: Similarity, approximate: bool) -> ndarray | None:
        """Return the table from which one that may be `approximate` can be made; None if there is none."""
        if not approximate and _name(relation, similarity) in self.answers.recalls:
            return None
        return self.answers.table(relation, similarity)


def write_precomputed(
    folder: Path,
    vectors: VectorIndex,
    relations: Sequence[int],
    similarities: Sequence[Similarity],
    before: PreviousAnswers | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the tables of the given similarities and relations into `folder`, which is created if necessary.

    Tables in `before` are carried over, but no exact table is made from one that is not. Tables of many items are not
    exact if the vectors have an ANN index; their recall is added to the report in `folder`. `advance` is called with
    the number of items after each table.
    """
    if not similarities:
        return
    folder.mkdir(exist_ok=True)
    recalls: dict[str, TableRecall] = {}
    tables = [(similarity, relation) for similarity in similarities for relation in relations]
    with progress_bar("precomputing answers", len(tables)) as show:
        for similarity, relation in tables:
            maker = TableMaker(vectors, relation, similarity)
            old = None if before is None else before.table(relation, similarity, maker.approximate)
            if before is None or old is None:
                table = maker.table(np.arange(maker.count))
            else:
                table = maker.carried(old, before.renumbered)
            save_array(folder / _name(relation, similarity), table)
            if maker.approximate:
                at_10, whole = maker.recall(table)
                recalls[_name(relation, similarity)] = TableRecall(recall_at_10=at_10, recall=whole)
            show("")
            advance(maker.count)
    _add_to_report(folder, recalls)


def _name(relation: int, similarity: Similarity) -> str:
    return f"{relation:03d}.{similarity}.npy"


def _add_to_report(folder: Path, recalls: Mapping[str, TableRecall]) -> None:
    """Add the recall of tables in `folder` to its report."""
    path = folder / REPORT_FILE
    if recalls:
        known = read_model(TablesReport, path).root if path.exists() else {}
        text = TablesReport(known | dict(recalls)).model_dump_json(indent=2)
        path.write_text(text + "\n", encoding="utf-8")
