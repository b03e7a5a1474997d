"""Tables of the report: every system side by side, and the tested network compared with each rival."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from model.records import Relation
from model.similarity import Similarity

from .evaluation_set import EvaluationSet
from .figures import (
    Catalogue,
    CatalogueFigures,
    CatalogueMeasures,
    Comparison,
    Estimate,
    Negatives,
    Overlap,
    PopularityBucket,
    RelationMeasures,
    RelationTypeFigures,
    RetrievalFigures,
    SensitivityFigures,
    ValidityFigures,
)
from .full_catalogue import CatalogueQueries
from .measurement import CatalogueResults, Measurement
from .metrics import Bootstrap
from .sampling import Queries
from .significance import holm, sign_flip_p

Name = TypeVar("Name", bound=str)

Values = Mapping[str, Float[ndarray, " cases"]]
"""Result of each case (query, edge or claim) by system."""

BUCKETS = 3
"""Maximum number of popularity buckets."""


@dataclass(frozen=True)
class Judge:
    """Estimates and tests with the items that own the cases as clusters; `tested` is compared with all others."""

    tested: str
    cluster: Int[ndarray, " cases"]
    bootstrap: Bootstrap
    seed: int

    @classmethod
    def of(cls, tested: str, cluster: Int[ndarray, " cases"], seed: int) -> "Judge":
        """Draw the bootstrap samples."""
        return cls(tested, cluster, Bootstrap.of(cluster, np.random.default_rng(seed)), seed)

    def estimate(self, values: Float[ndarray, " cases"]) -> Estimate:
        """Return the mean with its 95 % interval."""
        low, high = self.bootstrap.interval(values)
        return Estimate(value=float(values.mean()), low=low, high=high)

    def estimates(self, values: Values) -> dict[str, Estimate]:
        """Return the mean of each system."""
        return {name: self.estimate(own) for name, own in values.items()}

    def comparisons(self, values: Values) -> dict[str, Comparison]:
        """Compare the tested network with every other system; p is adjusted for their number."""
        return self.tests(
            {name: values[self.tested] - own for name, own in values.items() if name != self.tested}
        )

    def tests(self, differences: Mapping[Name, Float[ndarray, " cases"]]) -> dict[Name, Comparison]:
        """Test whether each mean difference is 0; p is adjusted for their number."""
        if not differences:
            return {}
        columns = np.stack(list(differences.values()), axis=1)
        p = sign_flip_p(columns, self.cluster, np.random.default_rng(self.seed))
        return {
            name: Comparison(difference=self.estimate(own), p=float(raw), p_holm=float(adjusted))
            for name, own, raw, adjusted in zip(differences, columns.T, p, holm(p), strict=True)
        }


def chance_tests(
    tested: str,
    hits: Mapping[Similarity, Float[ndarray, " queries"]],
    chance: float,
    queries: Queries,
    seed: int,
) -> dict[Similarity, Comparison]:
    """Compare Hit@5 of the tested network under each similarity with `chance`, the expected result of every query.

    The results of queries are not symmetric around chance, as sign flips assume, but their mean over many items is
    nearly so.
    """
    judge = Judge.of(tested, queries.item, seed)
    return judge.tests({similarity: own - chance for similarity, own in hits.items()})


def retrieval_tables(
    tested: str, systems: Mapping[str, Measurement], questions: EvaluationSet, seed: int
) -> dict[Negatives, RetrievalFigures]:
    """Return a table of Hit@5 for each kind of sampled queries."""
    tables: dict[Negatives, RetrievalFigures] = {}
    for kind, queries in questions.retrieval.items():
        judge = Judge.of(tested, queries.item, seed)
        values = {name: one.hits[kind] for name, one in systems.items()}
        tables[kind] = RetrievalFigures(
            queries=len(queries.item),
            left_out=questions.asked[kind] - len(queries.item),
            negatives=float((queries.candidates[:, 1:] >= 0).sum(axis=1).mean()),
            hit_at_5=judge.estimates(values),
            comparisons=judge.comparisons(values),
        )
    return tables


def catalogue_tables(
    tested: str,
    systems: Mapping[str, Measurement],
    questions: EvaluationSet,
    relations: Sequence[Relation],
    seed: int,
) -> dict[Catalogue, CatalogueFigures]:
    """Return a table of the full catalogue for each kind of query items; systems are compared by nDCG@10."""
    tables: dict[Catalogue, CatalogueFigures] = {}
    for kind, queries in questions.catalogues.items():
        judge = Judge.of(tested, queries.item, seed)
        results = {name: one.catalogues[kind] for name, one in systems.items()}
        tables[kind] = CatalogueFigures(
            queries=len(queries),
            pairs=len(queries.partner),
            candidates=len(queries.catalogue),
            systems={
                name: CatalogueMeasures(
                    **{
                        measure: judge.estimate(getattr(own, measure))
                        for measure in CatalogueMeasures.model_fields
                    }
                )
                for name, own in results.items()
            },
            comparisons=judge.comparisons({name: own.ndcg_at_10 for name, own in results.items()}),
            relations=_by_relation(results, queries, relations),
            popularity=popularity_buckets(results, queries, questions.popularity),
        )
    return tables


def _by_relation(
    results: Mapping[str, CatalogueResults], queries: CatalogueQueries, relations: Sequence[Relation]
) -> tuple[RelationMeasures, ...]:
    found = []
    for row in np.unique(queries.relation).tolist():
        own = queries.relation == row
        found.append(
            RelationMeasures(
                relation_id=relations[row].relation_id,
                queries=int(own.sum()),
                recall_at_10={name: float(one.recall_at_10[own].mean()) for name, one in results.items()},
                ndcg_at_10={name: float(one.ndcg_at_10[own].mean()) for name, one in results.items()},
            )
        )
    return tuple(found)


def popularity_buckets(
    results: Mapping[str, CatalogueResults],
    queries: CatalogueQueries,
    popularity: Int[ndarray, " positions"],
) -> tuple[PopularityBucket, ...]:
    """Divide the partners into buckets with about equally many items; equally popular items share a bucket."""
    items = popularity[np.unique(queries.partner)]
    limits = np.unique(np.quantile(items, np.arange(1, BUCKETS) / BUCKETS, method="lower"))
    bucket = np.searchsorted(limits, popularity[queries.partner])
    found = []
    for place in np.unique(bucket).tolist():
        own = bucket == place
        found.append(
            PopularityBucket(
                least=int(popularity[queries.partner][own].min()),
                most=int(popularity[queries.partner][own].max()),
                pairs=int(own.sum()),
                found_at_10={name: float(one.found_at_10[own].mean()) for name, one in results.items()},
            )
        )
    return tuple(found)


def relation_type_table(
    tested: str, hits: Values, log_loss: Mapping[str, float], questions: EvaluationSet, seed: int
) -> RelationTypeFigures:
    """Return the table of relation type; the cases of an edge belong to its first item."""
    judge = Judge.of(tested, questions.edges.a, seed)
    return RelationTypeFigures(
        edges=len(questions.edges),
        top_3=judge.estimates(hits),
        log_loss=dict(log_loss),
        comparisons=judge.comparisons(hits),
    )


def validity_table(tested: str, correct: Values, questions: EvaluationSet, seed: int) -> ValidityFigures:
    """Return the table of validity; a claim belongs to its first item."""
    judge = Judge.of(tested, questions.claims.pairs.a, seed)
    return ValidityFigures(
        claims=len(questions.claims.valid),
        accuracy=judge.estimates(correct),
        comparisons=judge.comparisons(correct),
    )


def sensitivity_table(
    systems: Mapping[str, Measurement], questions: EvaluationSet
) -> SensitivityFigures | None:
    """Return the overlap of answers under two relations; None if there is only one relation."""
    pairs = questions.pairs
    if not len(pairs.first):
        return None
    related = bool(pairs.related.any())
    return SensitivityFigures(
        items=len(pairs.items),
        related=int(pairs.related.sum()),
        partners=float(pairs.truth[pairs.related].mean()) if related else None,
        answers={
            name: Overlap(
                related=float(one.overlap[pairs.related].mean()) if related else None,
                all=float(one.overlap.mean()),
            )
            for name, one in systems.items()
        },
    )
