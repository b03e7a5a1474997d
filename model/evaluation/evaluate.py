"""`rcml evaluate`: measures a checkpoint on test items and compares it with chance and with two baselines.

All networks are measured on the same evaluation set: the same queries with the same random negatives, the same edges
and the same claims. `report.json` contains every figure (`figures.py`; docs/artifacts.md documents its keys).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from model.artifact import write_artifact
from model.checkpoint.calibration import UNCALIBRATED, Calibration
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.relation_quality import RelationQuality
from model.checkpoint.validity import VALIDITY_THRESHOLD
from model.config import EvaluateConfig, Objective
from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import InputError, MismatchError
from model.records import Split
from model.similarity import Similarity

from .figures import (
    Calibrated,
    ChanceFigures,
    DataCounts,
    Estimate,
    EvaluationReport,
    NetworkFigures,
    ReliabilityBin,
)
from .metrics import (
    Reliability,
    area_under_curve,
    expected_calibration_error,
    hit_at,
    interval,
    log_loss,
    relation_type_scores,
    retrieval_hits,
)
from .report import draw_plots, evaluation_markdown
from .sampling import LabelledPairs, Queries, sample_labelled_pairs, sample_queries

HIT_AT = 5
"""k of Hit@k in retrieval."""

TOP_RELATIONS = 3
"""k of the Top-k accuracy in relation-type prediction."""


@dataclass(frozen=True)
class EvaluationSet:
    """Queries, edges and claims of an evaluation.

    Items are identified by their position among the test items, and relations by their position among all relations.
    `known` contains the positions of the inter-sample relations.
    """

    texts: list[str]
    pictures: list[Path]
    edges: EdgeTable
    queries: Queries
    claims: LabelledPairs
    known: np.ndarray


@dataclass(frozen=True)
class Answers:
    """Outputs of one network for an evaluation set.

    `hits` maps each similarity to Hit@5 of each query. `types` maps each similarity to an array `[edges, relations]`
    with the cosine of the two items of each edge under each inter-sample relation. `log_odds` contains the output of
    the validity head for each claim.
    """

    hits: dict[Similarity, np.ndarray]
    types: dict[Similarity, np.ndarray]
    log_odds: np.ndarray


def evaluate(config: EvaluateConfig) -> str:
    """Run the stage and return its closing summary.

    Raises:
        ArtifactError: a checkpoint or the prepared data is missing or damaged, or they do not belong together.
        InputError: there are no test pairs, or too few test items.
    """
    prepared = Prepared.open(config.prepared)
    questions = make_evaluation_set(prepared, config)
    checkpoints: dict[Objective, Checkpoint] = {}
    networks: dict[Objective, NetworkFigures] = {}
    by_relation: tuple[RelationQuality, ...] = ()
    for role, path in _paths(config).items():
        checkpoint = Checkpoint.open(path)
        _check_fit(role, checkpoint, prepared, path)
        checkpoints[role] = checkpoint
        answers = answer_evaluation_set(checkpoint, questions, config)
        networks[checkpoint.metrics.objective] = network_figures(checkpoint, questions, answers, config)
        if role == "rcml":
            by_relation = figures_by_relation(checkpoint, questions, answers)
    tested = checkpoints["rcml"].metrics.objective
    report = EvaluationReport(
        data=DataCounts(
            items=len(questions.texts),
            edges=len(questions.edges),
            queries=len(questions.queries.item),
            claims=len(questions.claims.valid),
            relations=len(questions.known),
            candidates=config.candidates,
        ),
        chance=chance_figures(config.candidates, len(questions.known)),
        networks=networks,
        ratios=_ratios(networks, tested),
        relations=by_relation,
    )
    parents = {"prepared": prepared.manifest.digest}
    parents |= {role: checkpoint.manifest.digest for role, checkpoint in checkpoints.items()}
    with write_artifact(config.out, "report", config, parents) as draft:
        report.save(draft.path)
        (draft.path / "report.md").write_text(evaluation_markdown(report), encoding="utf-8")
        draw_plots(report, draft.path)
    own = networks[tested]
    return (
        f"Evaluated on {len(questions.texts)} unseen items: AVG Hit@5 {own.hit_at_5[Similarity.AVG].value:.3f} "
        f"(chance {report.chance.hit_at_5:.3f}), relation-type Top-3 "
        f"{own.relation_type_top_3[Similarity.AVG]:.3f}, validity accuracy {own.validity_accuracy:.3f}; "
        f"report in {config.out}"
    )


def _paths(config: EvaluateConfig) -> dict[Objective, Path]:
    """Return the checkpoints by role: the tested one first, in the role `rcml`, and then the given baselines."""
    paths: dict[Objective, Path] = {"rcml": config.checkpoint}
    if config.clip is not None:
        paths["clip"] = config.clip
    if config.blind is not None:
        paths["blind"] = config.blind
    return paths


def make_evaluation_set(prepared: Prepared, config: EvaluateConfig) -> EvaluationSet:
    """Draw the evaluation set from the test split.

    Raises:
        InputError: there are no test pairs, or too few test items.
    """
    rng = np.random.default_rng(config.seed)
    items = [prepared.items[row] for row in prepared.rows(Split.TEST)]
    found = [edge for edge in prepared.edges if edge.split == Split.TEST]
    if not found:
        raise InputError(
            f"{prepared.path} has no test pairs. Run `rcml prepare` with more data or a larger --test-share."
        )
    edges = EdgeTable.of(
        found,
        {item.item_id: row for row, item in enumerate(items)},
        {relation.relation_id: row for row, relation in enumerate(prepared.relations)},
    )
    known = np.array([row for row, relation in enumerate(prepared.relations) if not relation.intra])
    return EvaluationSet(
        texts=[item.text for item in items],
        pictures=[prepared.path / item.picture for item in items],
        edges=edges,
        queries=sample_queries(edges, config.candidates, config.max_queries, rng),
        claims=sample_labelled_pairs(edges, known, config.max_queries, rng),
        known=known,
    )


def answer_evaluation_set(
    checkpoint: Checkpoint, questions: EvaluationSet, config: EvaluateConfig
) -> Answers:
    """Compute the outputs of one network for the evaluation set."""
    encoder = Encoder.from_pretrained(checkpoint.path, config.device)
    encoding = encoder.encode_part(questions.texts, questions.pictures)
    return Answers(
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


def chance_figures(candidates: int, relations: int) -> ChanceFigures:
    """Compute the expected figures of random guesses from the numbers of candidates and relations."""
    return ChanceFigures(
        hit_at_5=min(1.0, HIT_AT / candidates),
        relation_type_top_3=min(1.0, TOP_RELATIONS / relations),
        relation_type_log_loss=float(np.log(relations)),
        validity_accuracy=0.5,
        validity_auc=0.5,
    )


def network_figures(
    checkpoint: Checkpoint, questions: EvaluationSet, answers: Answers, config: EvaluateConfig
) -> NetworkFigures:
    """Compute all figures of one network."""
    valid, truth = questions.claims.valid, np.searchsorted(questions.known, questions.edges.relation)
    validity = _validity_probabilities(checkpoint.calibration, answers.log_odds)
    types = {
        similarity: _relation_probabilities(checkpoint.calibration, scores, similarity)
        for similarity, scores in answers.types.items()
    }
    return NetworkFigures(
        hit_at_5={
            similarity: _estimate(hits, questions.queries, config.seed)
            for similarity, hits in answers.hits.items()
        },
        relation_type_top_3={
            similarity: float(hit_at(TOP_RELATIONS, scores, truth).mean())
            for similarity, scores in answers.types.items()
        },
        relation_type_top_3_calibrated={
            similarity: float(hit_at(TOP_RELATIONS, probability.after, truth).mean())
            for similarity, probability in types.items()
        },
        relation_type_log_loss={
            similarity: Calibrated[float](
                before=log_loss(probability.before, truth), after=log_loss(probability.after, truth)
            )
            for similarity, probability in types.items()
        },
        validity_accuracy=float(((validity.after >= VALIDITY_THRESHOLD) == valid).mean()),
        validity_auc=area_under_curve(answers.log_odds, valid),
        validity_log_loss=Calibrated[float](
            before=_claim_log_loss(validity.before, valid), after=_claim_log_loss(validity.after, valid)
        ),
        validity_ece=Calibrated[float | None](
            before=expected_calibration_error(validity.before, valid),
            after=expected_calibration_error(validity.after, valid),
        ),
        reliability=Calibrated[tuple[ReliabilityBin, ...]](
            before=Reliability.of(validity.before, valid).filled_bins(),
            after=Reliability.of(validity.after, valid).filled_bins(),
        ),
        calibration=checkpoint.calibration.version,
        parameters=checkpoint.metrics.parameters,
        steps=checkpoint.metrics.steps,
        seconds=checkpoint.metrics.seconds,
    )


@dataclass(frozen=True)
class _Probabilities:
    """Probabilities without (`before`) and with (`after`) the checkpoint's calibration."""

    before: Float[ndarray, "..."]
    after: Float[ndarray, "..."]


def _validity_probabilities(calibration: Calibration, log_odds: ndarray) -> _Probabilities:
    return _Probabilities(
        UNCALIBRATED.validity_probability(log_odds), calibration.validity_probability(log_odds)
    )


def _relation_probabilities(
    calibration: Calibration, scores: ndarray, similarity: Similarity
) -> _Probabilities:
    return _Probabilities(
        UNCALIBRATED.relation_probabilities(scores, similarity),
        calibration.relation_probabilities(scores, similarity),
    )


def _estimate(hits: ndarray, queries: Queries, seed: int) -> Estimate:
    low, high = interval(hits, queries.item, np.random.default_rng(seed))
    return Estimate(value=float(hits.mean()), low=low, high=high)


def _claim_log_loss(probability: ndarray, valid: ndarray) -> float:
    return log_loss(np.column_stack([1 - probability, probability]), valid.astype(np.int64))


def figures_by_relation(
    checkpoint: Checkpoint, questions: EvaluationSet, answers: Answers
) -> tuple[RelationQuality, ...]:
    """Compute the figures of each relation. A figure is None if the relation has too few queries or claims for it."""
    probability = checkpoint.calibration.validity_probability(answers.log_odds)
    hits, asked = answers.hits[Similarity.AVG], questions.queries.relation
    found = []
    for row in questions.known.tolist():
        relation = checkpoint.relations[row]
        claimed = questions.claims.pairs.relation == row
        valid = questions.claims.valid[claimed]
        found.append(
            RelationQuality(
                relation_id=relation.relation_id,
                description=relation.description,
                queries=int((asked == row).sum()),
                hit_at_5=float(hits[asked == row].mean()) if (asked == row).any() else None,
                claims=len(valid),
                validity_auc=area_under_curve(probability[claimed], valid),
                validity_ece=expected_calibration_error(probability[claimed], valid),
            )
        )
    return tuple(found)


def _ratios(networks: Mapping[Objective, NetworkFigures], tested: Objective) -> dict[Objective, float]:
    """Divide AVG Hit@5 of the tested network by AVG Hit@5 of each baseline."""
    baselines: tuple[Objective, ...] = ("clip", "blind")
    own = networks[tested].hit_at_5[Similarity.AVG].value
    return {
        baseline: own / networks[baseline].hit_at_5[Similarity.AVG].value
        for baseline in baselines
        if baseline in networks and baseline != tested
    }


def _check_fit(role: Objective, checkpoint: Checkpoint, prepared: Prepared, path: Path) -> None:
    if checkpoint.manifest.parents.get("prepared") != prepared.manifest.digest:
        raise MismatchError(
            f"{path} was not trained on the current contents of {prepared.path}, so it may have been trained on the "
            "test items. Train it again on this data, or set --prepared to the data that it was trained on."
        )
    objective = checkpoint.metrics.objective
    if role != "rcml" and objective != role:
        raise MismatchError(
            f"--{role} {path} was trained with --objective {objective}. Pass a checkpoint that was trained with "
            f"--objective {role}."
        )
