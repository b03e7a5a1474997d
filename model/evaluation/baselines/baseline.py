"""Protocol of a baseline, and the two kinds of baselines: priors of items, and cosines of item vectors.

A baseline scores items of the prepared data, given by their row in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray


class Baseline(Protocol):
    """Scorer that needs no network (`scoring.Scorer`), with a name and a sentence that says what it is."""

    @property
    def name(self) -> str:
        """Short name, used in tables."""
        ...

    @property
    def meaning(self) -> str:
        """What the baseline does, as the end of a sentence."""
        ...

    def scores(
        self, items: Int[ndarray, " queries"], relation: int, candidates: Int[ndarray, "..."]
    ) -> Float[ndarray, "queries candidates"]:
        """Score candidates for query items under one relation; see `scoring.Scorer`."""
        ...


@dataclass(frozen=True)
class ItemPrior:
    """Baseline that ignores the query item.

    `prior` has one row for each relation, or one row for all of them.
    """

    name: str
    meaning: str
    prior: Float[ndarray, "relations items"]

    def scores(
        self, items: Int[ndarray, " queries"], relation: int, candidates: Int[ndarray, "..."]
    ) -> Float[ndarray, "queries candidates"]:
        """Return the prior of each candidate."""
        own = self.prior[relation if len(self.prior) > 1 else 0]
        return np.broadcast_to(own[candidates], (len(items), candidates.shape[-1]))


@dataclass(frozen=True)
class ItemCosine:
    """Baseline that scores by the cosine of two item vectors.

    `vectors` contains one matrix of unit (or zero) rows for each relation, or one for all of them. The cosine with a
    zero row is 0.
    """

    name: str
    meaning: str
    vectors: Sequence[sp.csr_array]

    def scores(
        self, items: Int[ndarray, " queries"], relation: int, candidates: Int[ndarray, "..."]
    ) -> Float[ndarray, "queries candidates"]:
        """Compute the cosine of each candidate and the query item."""
        own = self.vectors[relation if len(self.vectors) > 1 else 0]
        if candidates.ndim == 1:
            return np.asarray((own[items] @ own[candidates].T).toarray())
        width = candidates.shape[1]
        products = own[np.repeat(items, width)].multiply(own[candidates.ravel()])
        return np.asarray(products.sum(axis=1)).reshape(len(items), width)


def unit_rows_of(vectors: sp.csr_array) -> sp.csr_array:
    """Normalise the rows of a sparse matrix; zero rows stay zero."""
    length = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    return sp.csr_array(sp.dia_array((scale[None], 0), shape=(len(scale), len(scale))) @ vectors)
