"""Metrics of the paper's three tasks, as pure functions of vectors and evaluation samples (NumPy, no torch).

A tie counts as its expected value, so a network that gives all candidates the same score is exactly at chance level.
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
from .scoring import NetworkScorer, Scorer, candidate_scores

HIT_AT = 5
"""k of Hit@k in retrieval."""

TOP_RELATIONS = 3
"""k of the Top-k accuracy in relation-type prediction."""

MAX_TIE_DIFFERENCE = 1e-5
"""Maximum difference of cosines that count as equal, so that float32 rounding does not decide between candidates."""

CALIBRATION_BINS = 15
"""Number of bins of equal width over [0, 1]; 15 is the usual choice."""


def hit_at(
    k: int, scores: Float[ndarray, "queries candidates"], truth: ndarray
) -> Float[ndarray, " queries"]:
    """Compute Hit@k of each query: 1 if the candidate in column `truth` is among the `k` best, otherwise 0.

    If the true candidate is tied with others and the `k` best places cannot hold all of them, the result is the
    probability in [0, 1] that the true candidate gets a place when ties are broken at random.
    """
    true = np.take_along_axis(scores, truth[:, None], axis=1)
    better = (scores > true + MAX_TIE_DIFFERENCE).sum(axis=1)
    equal = (np.abs(scores - true) <= MAX_TIE_DIFFERENCE).sum(axis=1)  # includes the true candidate
    return np.where(equal, np.clip((k - better) / np.maximum(equal, 1), 0.0, 1.0), 0.0)


def retrieval_hits(
    vectors: Encoding, queries: Queries, similarity: Similarity, k: int = 5
) -> Float[ndarray, " queries"]:
    """Compute Hit@k of each query under `similarity` (section 4.3.1)."""
    return query_hits(NetworkScorer(vectors, similarity), queries, k)


def query_hits(scorer: Scorer, queries: Queries, k: int = 5) -> Float[ndarray, " queries"]:
    """Compute Hit@k of each query; its true partner is in column 0."""
    scores = candidate_scores(scorer, queries)
    return hit_at(k, scores, np.zeros(len(scores), dtype=np.int64))


def relation_type_scores(
    vectors: Encoding, edges: EdgeTable, similarity: Similarity, relations: Int[ndarray, " known"]
) -> Float[ndarray, "edges known"]:
    """Compute the cosine of the two items of each edge under each of `relations` (section 4.3.2)."""
    scorer = NetworkScorer(vectors, similarity)
    scores = [scorer.scores(edges.a, relation, edges.b[:, None]) for relation in relations.tolist()]
    return np.concatenate(scores, axis=1)


def log_loss(probability: Float[ndarray, "questions answers"], truth: Int[ndarray, " questions"]) -> float:
    """Return the mean of -log(probability of the true answer), in nats.

    A uniform guess gives the log of the number of answers.
    """
    true = np.take_along_axis(probability, truth[:, None], axis=1)
    return float(-np.log(np.maximum(true, np.finfo(np.float32).tiny)).mean())


def area_under_curve(scores: Float[ndarray, " claims"], valid: Bool[ndarray, " claims"]) -> float | None:
    """Compute the probability that a true claim scores higher than a false one; None unless there are both.

    This is the area under the receiver operating characteristic, computed from ranks (Hanley & McNeil 1982). Ties count
    half.
    """
    trues = int(valid.sum())
    falses = len(valid) - trues
    if not trues or not falses:
        return None
    rank = rankdata(scores)[valid].sum()
    return float((rank - trues * (trues + 1) / 2) / (trues * falses))


@dataclass(frozen=True)
class Reliability:
    """Claims in bins of equal width over [0, 1], by their probability.

    `probability` is the mean probability in each bin, and `share` is the share of true claims. Both are 0 in an empty
    bin.
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
        """Group claims into bins."""
        place = np.minimum((probability * bins).astype(np.int64), bins - 1)
        claims = np.bincount(place, minlength=bins)
        mean_probability, share = (
            np.bincount(place, weights=values, minlength=bins) / np.maximum(claims, 1)
            for values in (probability, valid)
        )
        return cls(claims, mean_probability, share)

    def filled_bins(self) -> tuple[ReliabilityBin, ...]:
        """Return the bins that contain claims, in ascending order."""
        rows = zip(self.claims.tolist(), self.probability.tolist(), self.share.tolist(), strict=True)
        return tuple(
            ReliabilityBin(claims=claims, probability=probability, share=share)
            for claims, probability, share in rows
            if claims
        )


def expected_calibration_error(
    probability: Float[ndarray, " claims"], valid: Bool[ndarray, " claims"], bins: int = CALIBRATION_BINS
) -> float | None:
    """Compute the expected calibration error (Naeini et al. 2015); None if there are no claims.

    The error of a bin is the absolute difference between its mean probability and its share of true claims. The result
    is the mean of these errors, weighted by the number of claims in each bin. With few claims the result is too large:
    the error of a bin of 10 claims is about 0.13 even if every probability is correct.
    """
    if not len(valid):
        return None
    found = Reliability.of(probability, valid, bins)
    return float((found.claims * np.abs(found.probability - found.share)).sum() / len(valid))


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap samples of clusters: values of one cluster are drawn together, because they are not independent.

    The queries of one item, for example, form a cluster. `draws[s, c]` is how often sample s contains cluster c.
    """

    index: Int[ndarray, " values"]
    draws: Float[ndarray, "samples clusters"]

    @classmethod
    def of(
        cls, cluster: Int[ndarray, " values"], rng: np.random.Generator, samples: int = 1000
    ) -> "Bootstrap":
        """Draw the samples."""
        _, index = np.unique(cluster, return_inverse=True)
        clusters = int(index.max()) + 1
        draws = np.empty((samples, clusters))
        for sample in range(samples):
            draws[sample] = np.bincount(rng.integers(0, clusters, size=clusters), minlength=clusters)
        return cls(index, draws)

    def interval(self, values: Float[ndarray, " values"]) -> tuple[float, float]:
        """Compute the 95 % interval of the mean."""
        means = (self.draws @ np.bincount(self.index, weights=values)) / (
            self.draws @ np.bincount(self.index)
        )
        low, high = np.quantile(means, (0.025, 0.975))
        return float(low), float(high)


def interval(
    values: Float[ndarray, " values"],
    cluster: Int[ndarray, " values"],
    rng: np.random.Generator,
    draws: int = 1000,
) -> tuple[float, float]:
    """Compute the bootstrap 95 % interval of the mean; see `Bootstrap`."""
    return Bootstrap.of(cluster, rng, draws).interval(values)
