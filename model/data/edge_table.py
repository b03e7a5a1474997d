"""Edges by position, as arrays: what training batches and evaluation questions are drawn from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from model.records import Edge


@dataclass(frozen=True)
class EdgeTable:
    """Edges by position: of their items among some items, of their relation among all relations."""

    a: Int[ndarray, " edges"]
    b: Int[ndarray, " edges"]
    relation: Int[ndarray, " edges"]

    @classmethod
    def of(
        cls, edges: Sequence[Edge], item_rows: dict[str, int], relation_rows: dict[str, int]
    ) -> "EdgeTable":
        """Look up the positions of `edges`."""
        return cls(
            np.array([item_rows[edge.item_a] for edge in edges], dtype=np.int64),
            np.array([item_rows[edge.item_b] for edge in edges], dtype=np.int64),
            np.array([relation_rows[edge.relation_id] for edge in edges], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.a)

    def both_ways(self) -> "EdgeTable":
        """List each edge twice, once from either end."""
        return EdgeTable(
            np.concatenate([self.a, self.b]), np.concatenate([self.b, self.a]), np.tile(self.relation, 2)
        )

    def take(self, rows: ndarray) -> "EdgeTable":
        """Take the edges at `rows`."""
        return EdgeTable(self.a[rows], self.b[rows], self.relation[rows])
