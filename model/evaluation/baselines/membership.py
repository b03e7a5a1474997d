"""Membership prior: how likely an item takes part in a relation at all, judged by its text alone.

It ignores the query item. A network that does not beat it has learnt which items a relation is about, but not which of
them belong together.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .baseline import ItemPrior
from .evidence import Evidence
from .texts import text_vectors


def membership_log_odds(evidence: Evidence) -> Float[ndarray, "relations items"]:
    """Return the log-odds that each item has an edge under each relation, by logistic regression on TF-IDF vectors.

    One regression for each relation is fitted on the training items. If all or none of them have an edge under a
    relation, all items get the same log-odds.
    """
    from sklearn.linear_model import LogisticRegression

    vectors, training = text_vectors(evidence), evidence.training
    found = np.zeros((evidence.relations, evidence.items))
    for relation in range(evidence.relations):
        own = evidence.edges.relation == relation
        member = np.isin(training, np.concatenate([evidence.edges.a[own], evidence.edges.b[own]]))
        if member.all() or not member.any():
            share = (member.sum() + 0.5) / (len(member) + 1)
            found[relation] = np.log(share / (1 - share))
        else:
            fitted = LogisticRegression(max_iter=1000).fit(vectors[training], member)
            found[relation] = fitted.decision_function(vectors)
    return found


def membership_prior(log_odds: Float[ndarray, "relations items"]) -> ItemPrior:
    """Return the baseline that ranks candidates by their membership in the relation."""
    return ItemPrior(
        "membership",
        "how likely the candidate takes part in the relation at all, judged by its text; ignores the query",
        log_odds,
    )
