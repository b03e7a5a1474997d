"""Data that baselines are fitted on: texts, and the edges and the log of the training items.

Nothing of the test items is used but their texts, with one exception: the number of users of an item in the whole log,
for the popularity baseline and for the popularity buckets of the report.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp
from jaxtyping import Int
from numpy import ndarray

from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.records import Split


@dataclass(frozen=True)
class Evidence:
    """Texts of all items, and what is known about the training items. Items and relations are rows of prepared data.

    `taken[r]` has a row for each user of relation r and a column for each item; it contains only training items. It is
    None if the data was prepared from edges. `users` is the number of users of each item in the whole log (or None).
    """

    texts: tuple[str, ...]
    training: Int[ndarray, " training"]
    edges: EdgeTable
    relations: int
    taken: tuple[sp.csr_array, ...] | None
    users: Int[ndarray, " items"] | None

    @classmethod
    def of(cls, prepared: Prepared) -> "Evidence":
        """Collect the evidence in prepared data."""
        item_rows = {item.item_id: row for row, item in enumerate(prepared.items)}
        relation_rows = {relation.relation_id: row for row, relation in enumerate(prepared.relations)}
        training = np.array(prepared.rows(Split.TRAIN), dtype=np.int64)
        log = prepared.interactions()
        size = len(prepared.items)
        return cls(
            texts=tuple(item.text for item in prepared.items),
            training=training,
            edges=EdgeTable.of(
                [edge for edge in prepared.edges if edge.split == Split.TRAIN], item_rows, relation_rows
            ),
            relations=len(prepared.relations),
            taken=None if log is None else _taken(log, relation_rows, training, size),
            users=None if log is None else np.bincount(log["item"].to_numpy(), minlength=size),
        )

    @property
    def items(self) -> int:
        """Number of items in the prepared data."""
        return len(self.texts)

    def graph(self, relation: int | None = None) -> sp.csr_array:
        """Return the training graph as an adjacency matrix `[items, items]`, of one relation or of all of them."""
        edges = self.edges
        if relation is not None:
            edges = edges.take(np.flatnonzero(edges.relation == relation))
        both = edges.both_ways()
        found = sp.csr_array((np.ones(len(both)), (both.a, both.b)), shape=(self.items, self.items))
        found.data[:] = 1.0
        return found

    def popularity(self) -> Int[ndarray, " items"]:
        """Return the number of users of each item; without a log, its number of partners in the training graph."""
        if self.users is not None:
            return self.users
        return np.asarray(self.graph().sum(axis=1), dtype=np.int64).ravel()


def _taken(
    log: pl.DataFrame, relation_rows: dict[str, int], training: Int[ndarray, " training"], items: int
) -> tuple[sp.csr_array, ...]:
    user, item = log["user"].to_numpy(), log["item"].to_numpy()
    relation = np.array([relation_rows[name] for name in log["relation_id"].to_list()], dtype=np.int64)
    seen = np.isin(item, training)
    found = []
    for row in range(len(relation_rows)):
        own = seen & (relation == row)
        names, users = np.unique(user[own], return_inverse=True)
        found.append(
            sp.csr_array(
                (np.ones(own.sum()), (users, item[own])), shape=(len(names), items), dtype=np.float64
            )
        )
    return tuple(found)
