"""Results of one system for every query of an evaluation set, and their mean over checkpoints.

A *system* is anything that ranks candidates (`scoring.Scorer`): a network by AVG similarity, or a baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .evaluation_set import EvaluationSet
from .figures import Catalogue, Negatives
from .full_catalogue import CatalogueQueries, found_at, ndcg, rank_catalogue, recall_at, reciprocal_rank
from .metrics import HIT_AT, query_hits
from .scoring import Scorer
from .sensitivity import answer_overlap


@dataclass(frozen=True)
class CatalogueResults:
    """Results on the full catalogue; `found_at_10` is the result of each pair of a query and a true partner."""

    recall_at_5: Float[ndarray, " queries"]
    recall_at_10: Float[ndarray, " queries"]
    recall_at_50: Float[ndarray, " queries"]
    ndcg_at_10: Float[ndarray, " queries"]
    mrr: Float[ndarray, " queries"]
    found_at_10: Float[ndarray, " pairs"]

    @classmethod
    def of(cls, scorer: Scorer, queries: CatalogueQueries) -> "CatalogueResults":
        """Rank the catalogue for each query."""
        places = rank_catalogue(scorer, queries)
        return cls(
            recall_at_5=recall_at(5, places, queries),
            recall_at_10=recall_at(10, places, queries),
            recall_at_50=recall_at(50, places, queries),
            ndcg_at_10=ndcg(places, queries),
            mrr=reciprocal_rank(places, queries),
            found_at_10=found_at(10, places),
        )

    @classmethod
    def mean(cls, results: Sequence["CatalogueResults"]) -> "CatalogueResults":
        """Average the results of each query over checkpoints."""
        return cls(
            **{
                field.name: np.mean([getattr(result, field.name) for result in results], axis=0)
                for field in fields(cls)
            }
        )


@dataclass(frozen=True)
class Measurement:
    """Results of one system: Hit@5 of each sampled query, the full catalogue, and the overlap of answers."""

    hits: dict[Negatives, Float[ndarray, " queries"]]
    catalogues: dict[Catalogue, CatalogueResults]
    overlap: Float[ndarray, "items pairs"]

    @classmethod
    def of(cls, scorer: Scorer, questions: EvaluationSet) -> "Measurement":
        """Put every query to one system."""
        return cls(
            hits={kind: query_hits(scorer, queries, HIT_AT) for kind, queries in questions.retrieval.items()},
            catalogues={
                kind: CatalogueResults.of(scorer, queries) for kind, queries in questions.catalogues.items()
            },
            overlap=answer_overlap(scorer, questions.pairs, questions.catalogue),
        )

    @classmethod
    def mean(cls, measurements: Sequence["Measurement"]) -> "Measurement":
        """Average the results of each query over checkpoints."""
        first = measurements[0]
        return cls(
            hits={kind: np.mean([one.hits[kind] for one in measurements], axis=0) for kind in first.hits},
            catalogues={
                kind: CatalogueResults.mean([one.catalogues[kind] for one in measurements])
                for kind in first.catalogues
            },
            overlap=np.mean([one.overlap for one in measurements], axis=0),
        )
