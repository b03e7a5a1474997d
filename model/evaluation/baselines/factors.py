"""Matrix factorisation of the training log by implicit alternating least squares (Hu, Koren & Volinsky 2008)."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from numpy import ndarray

from .baseline import ItemCosine, unit_rows_of
from .evidence import Evidence

FACTORS = 32
ITERATIONS = 10
CONFIDENCE = 40.0
"""Weight alpha of an observed interaction over an unobserved one, as in the paper."""
REGULARISATION = 1.0


def matrix_factors(evidence: Evidence, seed: int) -> ItemCosine:
    """Return the baseline that ranks by the cosine of the factors of two items, whatever the relation.

    Without a log, the training graph is factorised. An item without interactions has the zero vector.
    """
    if evidence.taken is None:
        meaning = "factors of the two items in the training graph (implicit ALS); a new item has none"
        taken = evidence.graph()
    else:
        meaning = "factors of the two items in the training log (implicit ALS); a new item has none"
        taken = sp.csr_array(sp.vstack(evidence.taken))
    _, items = factorise(taken, FACTORS, ITERATIONS, np.random.default_rng(seed))
    return ItemCosine("factors", meaning, (unit_rows_of(sp.csr_array(items)),))


def factorise(
    taken: sp.csr_array, factors: int, iterations: int, rng: np.random.Generator
) -> tuple[Float[ndarray, "users factors"], Float[ndarray, "items factors"]]:
    """Factorise a matrix of zeros and ones; return the factors of its rows and of its columns.

    Minimises the sum of c_ui (p_ui - x_u . y_i)^2 + regularisation (|x|^2 + |y|^2), with c_ui = 1 + alpha p_ui (eq. 3).
    A row or column of zeros gets the zero vector.
    """
    columns = sp.csr_array(taken.T)
    items = rng.normal(scale=factors**-0.5, size=(taken.shape[1], factors))
    items[np.diff(columns.indptr) == 0] = 0.0
    users = solve(taken, items)
    for _ in range(iterations - 1):
        items = solve(columns, users)
        users = solve(taken, items)
    return users, items


def solve(taken: sp.csr_array, others: Float[ndarray, "columns factors"]) -> Float[ndarray, "rows factors"]:
    """Return the best factors of the rows, given those of the columns (eq. 4)."""
    gram = others.T @ others + REGULARISATION * np.eye(others.shape[1])
    found = np.zeros((taken.shape[0], others.shape[1]))
    for row, (start, end) in enumerate(zip(taken.indptr[:-1], taken.indptr[1:], strict=True)):
        if start < end:
            own = others[taken.indices[start:end]]
            found[row] = np.linalg.solve(gram + CONFIDENCE * own.T @ own, (1 + CONFIDENCE) * own.sum(axis=0))
    return found
