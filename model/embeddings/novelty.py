"""Novelty of a free-text relation: how near it is to what a network was trained on, as a warning for users.

The cosine of its h_E with the nearest trained one says little by itself: towers differ in how near they put any two
texts (0.1 or 0.9 for nonsense). So the scale is taken from the checkpoint's own relations. At its far end stands the
relation of an item with itself, a text about something else than what goes together; at its near end, how near a
trained relation is to its nearest neighbour at least. `FAMILIAR_SHARE` of the way is where the familiar begins.

Measured in docs/decisions.md, as is what was tried before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.records import Relation

FAMILIAR_SHARE = 0.25
"""Of the way from the unrelated to the least related of what was trained on."""


@dataclass(frozen=True, slots=True)
class Novelty:
    """The trained relation `nearest` to a free-text one, by the cosine of their h_E, and the least cosine to trust."""

    nearest: Relation
    cosine: float
    familiar_from: float

    @property
    def out_of_distribution(self) -> bool:
        """Whether the relation is far from all that was trained on."""
        return self.cosine < self.familiar_from - 1e-6

    @classmethod
    def of(
        cls,
        vector: Float32[ndarray, " dim"],
        relations: Sequence[Relation],
        vectors: Float32[ndarray, "relations dim"],
    ) -> "Novelty":
        """Compare h_E `vector` with `vectors`, the h_E of the trained `relations`; none need be normalised."""
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
