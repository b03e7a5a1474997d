"""Co-occurrence: items are similar if the same users of the relation took both (item-based collaborative filtering)."""

import scipy.sparse as sp

from .baseline import ItemCosine, unit_rows_of
from .evidence import Evidence


def co_occurrence(evidence: Evidence) -> ItemCosine:
    """Return the baseline that ranks by the cosine of the users of two items (Sarwar et al. 2001).

    Only the users of the relation count. Without a log, the partners in the training graph take the place of users. An
    item that is not a training item has no users, so all its scores are 0.
    """
    if evidence.taken is None:
        meaning = "partners that the two items share in the training graph; a new item has none"
        matrices = [evidence.graph(relation) for relation in range(evidence.relations)]
    else:
        meaning = "users of the relation who took both items, in the training log; a new item has none"
        matrices = [sp.csr_array(taken.T) for taken in evidence.taken]
    return ItemCosine("co-occurrence", meaning, tuple(unit_rows_of(matrix) for matrix in matrices))
