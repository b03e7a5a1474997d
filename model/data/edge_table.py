"""Edges as arrays of positions, from which training batches and evaluation queries are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from model.records import Edge


@dataclass(frozen=True)
class EdgeTable:
    """Edges as arrays.

    `a` and `b` are positions in a list of items, and `relation` is a position in a list of relations.
    """

    a: Int[ndarray, " edges"]
    b: Int[ndarray, " edges"]
    relation: Int[ndarray, " edges"]

    @classmethod
    def of(
        cls, edges: Sequence[Edge], item_rows: dict[str, int], relation_rows: dict[str, int]
    ) -> "EdgeTable":
        """Create a table of `edges`. `item_rows` and `relation_rows` map IDs to positions."""
        return cls(
            np.array([item_rows[edge.item_a] for edge in edges], dtype=np.int64),
            np.array([item_rows[edge.item_b] for edge in edges], dtype=np.int64),
            np.array([relation_rows[edge.relation_id] for edge in edges], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.a)

    def both_ways(self) -> "EdgeTable":
        """Return a table that contains each edge in both directions."""
        return EdgeTable(
            np.concatenate([self.a, self.b]), np.concatenate([self.b, self.a]), np.tile(self.relation, 2)
        )

    def take(self, rows: ndarray) -> "EdgeTable":
        """Return a table of the edges at `rows`."""
        return EdgeTable(self.a[rows], self.b[rows], self.relation[rows])

    def by_domain(self, domain_of_relation: Int[ndarray, " relations"]) -> list["EdgeTable"]:
        """Return the edges of each domain that has any; `domain_of_relation` is the domain's number."""
        domain = domain_of_relation[self.relation]
        return [self.take(np.flatnonzero(domain == one)) for one in np.unique(domain)]
