"""All baselines of an evaluation, fitted on the training items of prepared data."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared

from .baseline import Baseline
from .co_occurrence import co_occurrence
from .evidence import Evidence
from .factors import matrix_factors
from .membership import membership_log_odds, membership_prior
from .popularity import popularity, random_order
from .relation_frequency import frequency_scores, member_scores
from .texts import text_cosine


@dataclass(frozen=True)
class Baselines:
    """Baselines of retrieval, and the evidence and log-odds for those of relation type."""

    retrieval: tuple[Baseline, ...]
    evidence: Evidence
    log_odds: Float[ndarray, "relations items"]

    @classmethod
    def fit(cls, prepared: Prepared, seed: int) -> Self:
        """Fit all baselines."""
        evidence = Evidence.of(prepared)
        log_odds = membership_log_odds(evidence)
        retrieval: tuple[Baseline, ...] = (
            random_order(evidence),
            popularity(evidence),
            membership_prior(log_odds),
            text_cosine(evidence),
            co_occurrence(evidence),
            matrix_factors(evidence, seed),
        )
        return cls(retrieval, evidence, log_odds)

    @property
    def meanings(self) -> dict[str, str]:
        """What each baseline does, by its name."""
        return {baseline.name: baseline.meaning for baseline in self.retrieval} | {
            "frequency": "the frequency of each relation among the training edges, the same for every pair",
            "frequency x membership": "frequency times the membership of both items in the relation",
        }

    def relation_types(
        self, edges: EdgeTable, relations: Int[ndarray, " known"]
    ) -> dict[str, Float[ndarray, "edges known"]]:
        """Return the probability of each of `relations` for each edge; `edges` contain rows of prepared data."""
        logs = {
            "frequency": frequency_scores(self.evidence, edges, relations),
            "frequency x membership": member_scores(self.evidence, edges, relations, self.log_odds),
        }
        return {name: _softmax(scores) for name, scores in logs.items()}


def _softmax(scores: Float[ndarray, "edges known"]) -> Float[ndarray, "edges known"]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
