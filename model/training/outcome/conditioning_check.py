"""Warnings after training, if the relations hardly change the vectors of an item."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.embeddings.encoding import Encoding
from model.records import Relation

UNCONDITIONED_COSINE = 0.9995
"""Mean cosine of an item's vectors under two relations above which the relations count as without effect."""

COINCIDING_COSINE = 0.9995
"""Cosine of two encoded descriptions above which the two relations count as one."""


def conditioning_warnings(
    encoding: Encoding, relations: Sequence[Relation], relation_vectors: Float32[ndarray, "relations dim"]
) -> list[str]:
    """Return a warning for each modality without conditioning, and for each pair of relations that coincide.

    `relation_vectors` contains h_E of `relations`, which are also the relations of `encoding`.
    """
    inter = [row for row, relation in enumerate(relations) if not relation.intra]
    if len(inter) < 2:
        return []
    found = []
    for name, vectors in (("text", encoding.text), ("image", encoding.image)):
        cosine = mean_relation_cosine(vectors[:, inter])
        if cosine > UNCONDITIONED_COSINE:
            found.append(
                f"The relation hardly changes the {name} vectors: those of an item under two relations have a mean "
                f"cosine of {cosine:.4f}. Use --conditioning centred+bias, train longer, or write descriptions that "
                "differ more."
            )
    units = relation_vectors / np.linalg.norm(relation_vectors, axis=1, keepdims=True)
    for a, b in combinations(inter, 2):
        if float(units[a] @ units[b]) > COINCIDING_COSINE:
            found.append(
                f"The relations {relations[a].relation_id} and {relations[b].relation_id} have almost the same encoded "
                "description, so they get almost the same answers. Change one of the descriptions, or merge the "
                "relations."
            )
    return found


def mean_relation_cosine(vectors: Float32[ndarray, "items relations dim"]) -> float:
    """Return the mean cosine of the unit vectors of an item under two different relations.

    The sum of all pairwise products of n unit vectors is |sum of the vectors|^2, of which n are products of a vector
    with itself.
    """
    count = vectors.shape[1]
    total = np.square(vectors.sum(axis=1, dtype=np.float64)).sum(axis=-1)
    return float(((total - count) / (count * (count - 1))).mean())
