"""Answers of a network to the paper's three tasks, and its figures: means over the checkpoints of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from model.checkpoint.calibration import UNCALIBRATED
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.relation_quality import RelationQuality
from model.checkpoint.validity import VALIDITY_THRESHOLD
from model.embeddings.encoding import Encoding
from model.similarity import Similarity

from .evaluation_set import EvaluationSet
from .figures import Calibrated, CheckpointFigures, Estimate, NetworkFigures, ReliabilityBin
from .measurement import Measurement
from .metrics import (
    HIT_AT,
    TOP_RELATIONS,
    Bootstrap,
    Reliability,
    area_under_curve,
    expected_calibration_error,
    hit_at,
    log_loss,
    relation_type_scores,
    retrieval_hits,
)


@dataclass(frozen=True)
class Probabilities:
    """Probabilities without (`before`) and with (`after`) the checkpoint's calibration."""

    before: Float[ndarray, "..."]
    after: Float[ndarray, "..."]


@dataclass(frozen=True)
class Answers:
    """Outputs of one checkpoint for an evaluation set.

    `hits` maps each similarity to Hit@5 of each query. `types` maps each similarity to an array `[edges, relations]`
    with the cosine of the two items of each edge under each inter-sample relation. `log_odds` contains the output of
    the validity head for each claim.
    """

    checkpoint: Checkpoint
    hits: dict[Similarity, Float[ndarray, " queries"]]
    types: dict[Similarity, Float[ndarray, "edges known"]]
    log_odds: Float[ndarray, " claims"]

    @classmethod
    def of(cls, checkpoint: Checkpoint, encoding: Encoding, questions: EvaluationSet) -> "Answers":
        """Compute the outputs from the vectors of the test items."""
        return cls(
            checkpoint=checkpoint,
            hits={
                similarity: retrieval_hits(encoding, questions.queries, similarity, HIT_AT)
                for similarity in Similarity
            },
            types={
                similarity: relation_type_scores(encoding, questions.edges, similarity, questions.known)
                for similarity in Similarity
            },
            log_odds=checkpoint.validity.log_odds(
                questions.claims.vectors(encoding, checkpoint.relation_vectors)
            ),
        )

    @property
    def validity(self) -> Probabilities:
        """Probability that each claim is true."""
        return Probabilities(
            UNCALIBRATED.validity_probability(self.log_odds),
            self.checkpoint.calibration.validity_probability(self.log_odds),
        )

    def relation_types(self, similarity: Similarity) -> Probabilities:
        """Probability of each relation for each edge."""
        scores = self.types[similarity]
        return Probabilities(
            UNCALIBRATED.relation_probabilities(scores, similarity),
            self.checkpoint.calibration.relation_probabilities(scores, similarity),
        )

    def correct(self, questions: EvaluationSet) -> Bool[ndarray, " claims"]:
        """Return whether each claim is judged correctly."""
        return np.asarray((self.validity.after >= VALIDITY_THRESHOLD) == questions.claims.valid)


def mean_hits(answers: Sequence[Answers]) -> dict[Similarity, Float[ndarray, " queries"]]:
    """Average Hit@5 of each query over the checkpoints of a network."""
    return {
        similarity: np.mean([one.hits[similarity] for one in answers], axis=0) for similarity in Similarity
    }


def network_figures(
    answers: Sequence[Answers], questions: EvaluationSet, bootstrap: Bootstrap
) -> NetworkFigures:
    """Compute all figures of one network from the answers of its checkpoints. `bootstrap` draws query items."""
    valid, truth = questions.claims.valid, questions.truth
    validity = [one.validity for one in answers]
    types = {similarity: [one.relation_types(similarity) for one in answers] for similarity in Similarity}
    metrics = [one.checkpoint.metrics for one in answers]
    return NetworkFigures(
        hit_at_5={similarity: estimate(hits, bootstrap) for similarity, hits in mean_hits(answers).items()},
        relation_type_top_3={
            similarity: fmean(_top(one.types[similarity], truth) for one in answers)
            for similarity in Similarity
        },
        relation_type_top_3_calibrated={
            similarity: fmean(_top(one.after, truth) for one in types[similarity])
            for similarity in Similarity
        },
        relation_type_log_loss={
            similarity: Calibrated[float](
                before=fmean(log_loss(one.before, truth) for one in types[similarity]),
                after=fmean(log_loss(one.after, truth) for one in types[similarity]),
            )
            for similarity in Similarity
        },
        validity_accuracy=fmean(float(one.correct(questions).mean()) for one in answers),
        validity_auc=_mean([area_under_curve(one.log_odds, valid) for one in answers]),
        validity_log_loss=Calibrated[float](
            before=fmean(_claim_log_loss(one.before, valid) for one in validity),
            after=fmean(_claim_log_loss(one.after, valid) for one in validity),
        ),
        validity_ece=Calibrated[float | None](
            before=_mean([expected_calibration_error(one.before, valid) for one in validity]),
            after=_mean([expected_calibration_error(one.after, valid) for one in validity]),
        ),
        reliability=Calibrated[tuple[ReliabilityBin, ...]](
            before=_bins([one.before for one in validity], valid),
            after=_bins([one.after for one in validity], valid),
        ),
        calibration=", ".join(one.checkpoint.calibration.version for one in answers),
        parameters=metrics[0].parameters,
        steps=round(fmean(one.steps for one in metrics)),
        seconds=fmean(one.seconds for one in metrics),
    )


def checkpoint_figures(
    answers: Answers, measurement: Measurement, questions: EvaluationSet
) -> CheckpointFigures:
    """Return the main figures of one checkpoint."""
    seed = (answers.checkpoint.config.model_extra or {}).get("seed")
    probability = answers.relation_types(Similarity.AVG).after
    return CheckpointFigures(
        path=str(answers.checkpoint.path),
        seed=seed,
        hit_at_5=float(answers.hits[Similarity.AVG].mean()),
        ndcg_at_10=float(measurement.catalogues["new"].ndcg_at_10.mean()),
        relation_type_top_3=_top(probability, questions.truth),
        validity_accuracy=float(answers.correct(questions).mean()),
    )


def figures_by_relation(answers: Sequence[Answers], questions: EvaluationSet) -> tuple[RelationQuality, ...]:
    """Compute the figures of each relation. A figure is None if the relation has too few queries or claims for it."""
    hits = np.mean([one.hits[Similarity.AVG] for one in answers], axis=0)
    probabilities = [one.validity.after for one in answers]
    asked = questions.queries.relation
    found = []
    for row in questions.known.tolist():
        relation = answers[0].checkpoint.relations[row]
        claimed = questions.claims.pairs.relation == row
        valid = questions.claims.valid[claimed]
        areas = [area_under_curve(probability[claimed], valid) for probability in probabilities]
        errors = [expected_calibration_error(probability[claimed], valid) for probability in probabilities]
        found.append(
            RelationQuality(
                relation_id=relation.relation_id,
                description=relation.description,
                queries=int((asked == row).sum()),
                hit_at_5=float(hits[asked == row].mean()) if (asked == row).any() else None,
                claims=len(valid),
                validity_auc=_mean(areas),
                validity_ece=_mean(errors),
            )
        )
    return tuple(found)


def estimate(values: Float[ndarray, " values"], bootstrap: Bootstrap) -> Estimate:
    """Return the mean with its 95 % interval."""
    low, high = bootstrap.interval(values)
    return Estimate(value=float(values.mean()), low=low, high=high)


def _top(scores: Float[ndarray, "edges known"], truth: ndarray) -> float:
    return float(hit_at(TOP_RELATIONS, scores, truth).mean())


def _bins(probabilities: Sequence[ndarray], valid: ndarray) -> tuple[ReliabilityBin, ...]:
    return Reliability.of(np.concatenate(probabilities), np.tile(valid, len(probabilities))).filled_bins()


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the figures of the checkpoints; all or none of them are None."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _claim_log_loss(probability: ndarray, valid: ndarray) -> float:
    return log_loss(np.column_stack([1 - probability, probability]), valid.astype(np.int64))
