"""Baselines of relation-type prediction: relations by their frequency, alone and with the membership of both items."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from model.data.edge_table import EdgeTable

from .evidence import Evidence


def frequency_scores(
    evidence: Evidence, edges: EdgeTable, relations: Int[ndarray, " known"]
) -> Float[ndarray, "edges known"]:
    """Return the log of the frequency of each relation among the training edges, the same for every edge.

    Each relation counts one edge more than it has, so no frequency is 0.
    """
    counts = np.bincount(evidence.edges.relation, minlength=evidence.relations)[relations] + 1.0
    return np.asarray(np.tile(np.log(counts / counts.sum()), (len(edges), 1)))


def member_scores(
    evidence: Evidence,
    edges: EdgeTable,
    relations: Int[ndarray, " known"],
    log_odds: Float[ndarray, "relations items"],
) -> Float[ndarray, "edges known"]:
    """Return the log of frequency times the probabilities that both items take part in the relation.

    `log_odds` come from `membership.membership_log_odds`, and `edges` contain rows of prepared data.
    """
    own = log_odds[relations]
    both = -np.logaddexp(0.0, -own[:, edges.a]) - np.logaddexp(0.0, -own[:, edges.b])
    return np.asarray(frequency_scores(evidence, edges, relations) + both.T)
