"""The figures of the paper's three tasks, as pure functions of vectors and questions (NumPy, no torch).

Ties are worth their expectation: a network that scores all candidates alike earns exactly chance.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.stats import rankdata

from model.data.edge_table import EdgeTable
from model.embeddings.encoding import Encoding
from model.similarity import Similarity

from .figures import ReliabilityBin
from .sampling import Queries

MAX_TIE_DIFFERENCE = 1e-5
"""Cosines closer than this are equal: float32 rounding must not decide between candidates."""

CALIBRATION_BINS = 15
"""Bins of equal width over [0, 1], the usual number."""


def hit_at(
    k: int, scores: Float[ndarray, "queries candidates"], truth: ndarray
) -> Float[ndarray, " queries"]:
    """Compute the chance in [0, 1] that the candidate in column `truth` is among the `k` best; ties fall at random."""
    true = np.take_along_axis(scores, truth[:, None], axis=1)
    better = (scores > true + MAX_TIE_DIFFERENCE).sum(axis=1)
    equal = (np.abs(scores - true) <= MAX_TIE_DIFFERENCE).sum(axis=1)  # the true one included
    return np.where(equal, np.clip((k - better) / np.maximum(equal, 1), 0.0, 1.0), 0.0)


def retrieval_hits(
    vectors: Encoding, queries: Queries, similarity: Similarity, k: int = 5
) -> Float[ndarray, " queries"]:
    """Compute Hit@k of each query under `similarity` (section 4.3.1)."""
    query_view, target_view = (vectors.view(view) for view in similarity.views)
    query = query_view[queries.item, queries.relation]
    target = target_view[queries.candidates, queries.relation[:, None]]
    scores = np.einsum("qd,qcd->qc", query, target)
    return hit_at(k, scores, np.zeros(len(scores), dtype=np.int64))


def relation_type_scores(
    vectors: Encoding, edges: EdgeTable, similarity: Similarity, relations: Int[ndarray, " known"]
) -> Float[ndarray, "edges known"]:
    """Compute the cosine of each edge's items under each of `relations`; its own should be best (section 4.3.2)."""
    a_view, b_view = (vectors.view(view) for view in similarity.views)
    scores = [
        np.einsum("ed,ed->e", a_view[edges.a, relation], b_view[edges.b, relation]) for relation in relations
    ]
    return np.stack(scores, axis=1)


def log_loss(probability: Float[ndarray, "questions answers"], truth: Int[ndarray, " questions"]) -> float:
    """Average -log of the probability of the true answer, in nats; log(answers) for a uniform guess."""
    true = np.take_along_axis(probability, truth[:, None], axis=1)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def area_under_curve(scores: Float[ndarray, " claims"], valid: Bool[ndarray, " claims"]) -> float | None:
    """Compute the chance that a true claim scores above a false one, ties counted half; None unless there are both.

    That is the area under the receiver operating characteristic (Hanley & McNeil 1982), by ranks.
    """
    trues = int(valid.sum())
    falses = len(valid) - trues
    if not trues or not falses:
        return None
    rank = rankdata(scores)[valid].sum()
    return float((rank - trues * (trues + 1) / 2) / (trues * falses))


@dataclass(frozen=True)
class Reliability:
    """Claims in bins of equal width over [0, 1] by their probability.

    `probability` is the mean of a bin, `share` the part of it that is true; both are 0 in an empty bin.
    """

    claims: Int[ndarray, " bins"]
    probability: Float[ndarray, " bins"]
    share: Float[ndarray, " bins"]

    @classmethod
    def of(
        cls,
        probability: Float[ndarray, " claims"],
        valid: Bool[ndarray, " claims"],
        bins: int = CALIBRATION_BINS,
    ) -> "Reliability":
        """Sort claims into bins."""
        place = np.minimum((probability * bins).astype(np.int64), bins - 1)
        claims = np.bincount(place, minlength=bins)
        mean_probability, share = (
            np.bincount(place, weights=values, minlength=bins) / np.maximum(claims, 1)
            for values in (probability, valid)
        )
        return cls(claims, mean_probability, share)

    def filled_bins(self) -> tuple[ReliabilityBin, ...]:
        """List the bins that are not empty, from 0 to 1."""
        rows = zip(self.claims.tolist(), self.probability.tolist(), self.share.tolist(), strict=True)
        return tuple(
            ReliabilityBin(claims=claims, probability=probability, share=share)
            for claims, probability, share in rows
            if claims
        )


def expected_calibration_error(
    probability: Float[ndarray, " claims"], valid: Bool[ndarray, " claims"], bins: int = CALIBRATION_BINS
) -> float | None:
    """Average the gap between probability and truth over claims (Naeini et al. 2015); None without claims.

    Few claims make it larger: a bin of 10 is off by 0.13 or so even if every probability is right.
    """
    if not len(valid):
        return None
    found = Reliability.of(probability, valid, bins)
    return float((found.claims * np.abs(found.probability - found.share)).sum() / len(valid))


def interval(
    values: Float[ndarray, " values"],
    cluster: Int[ndarray, " values"],
    rng: np.random.Generator,
    draws: int = 1000,
) -> tuple[float, float]:
    """Bootstrap the 95 % interval of the mean; whole clusters are drawn, since one item asks many questions."""
    _, index = np.unique(cluster, return_inverse=True)
    totals, sizes = np.bincount(index, weights=values), np.bincount(index)
    picks = rng.integers(0, len(totals), size=(draws, len(totals)))
    means = totals[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
