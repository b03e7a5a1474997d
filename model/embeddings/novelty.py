"""Novelty of a free-text relation: its similarity to the trained relations, used to warn users.

The cosine between the h_E of a free-text relation and the h_E of the nearest trained relation is not meaningful by
itself. For nonsense, it is about 0.1 with some text towers and about 0.9 with others. This module therefore places the
cosine on a scale that it derives from the trained relations of the checkpoint. The lower end is the mean cosine of the
trained relations with the intra-sample relation, whose text is not about items that go together. Each trained relation
also has a cosine with its nearest neighbour, and the upper end is the lowest of these cosines. The out-of-distribution
threshold is at `FAMILIAR_SHARE` of the way from the lower to the upper end.

docs/decisions.md contains the measurements and the alternatives that were tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.records import Relation

FAMILIAR_SHARE = 0.25
"""Position of the out-of-distribution threshold on the scale, from 0 (lower end) to 1 (upper end)."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """Trained relation nearest to a free-text relation, with their cosine and the out-of-distribution threshold.

    `cosine` compares the h_E of the two relations. If `cosine` is below `familiar_from`, the free-text relation is
    out-of-distribution.
    """

    nearest: Relation
    cosine: float
    familiar_from: float

    @property
    def out_of_distribution(self) -> bool:
        """True if the free-text relation is not similar enough to any trained relation."""
        return self.cosine < self.familiar_from - 1e-6

    @classmethod
    def of(
        cls,
        vector: Float32[ndarray, " dim"],
        relations: Sequence[Relation],
        vectors: Float32[ndarray, "relations dim"],
    ) -> "Novelty":
        """Compare `vector`, the h_E of a free-text relation, with `vectors`, the h_E of the trained `relations`.

        The vectors need not be normalised.
        """
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        intra = np.array([relation.intra for relation in relations])
        between = units[~intra] @ units[~intra].T
        others = np.where(np.eye(len(between), dtype=bool), -np.inf, between)
        related = float(others.max(axis=1).min()) if len(between) > 1 else 1.0
        unrelated = float((units[~intra] @ units[intra].T).mean())
        cosines = np.where(intra, -np.inf, units @ vector / np.linalg.norm(vector))
        nearest = int(np.argmax(cosines))
        return cls(
            relations[nearest], float(cosines[nearest]), unrelated + FAMILIAR_SHARE * (related - unrelated)
        )
