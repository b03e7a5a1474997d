"""`rcml evaluate`: a checkpoint on items it never saw, beside chance and beside its two rivals.

All networks answer the same questions: the same queries with the same random negatives, the same edges, the
same claims. `report.json` holds every figure (its keys are documented in docs/artifacts.md).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact import write_artifact
from model.checkpoint.calibration import UNCALIBRATED
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.validity import THRESHOLD
from model.config import EvaluateConfig, Objective
from model.data.edge_table import EdgeTable
from model.data.prepared import Prepared
from model.encoder.encoder import Encoder
from model.errors import InputError, MismatchError
from model.records import Split
from model.similarity import Similarity

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
from .report import draw_plots, in_markdown
from .sampling import LabelledPairs, Queries, sample_labelled_pairs, sample_queries

HIT_AT = 5
TOP = 3


@dataclass(frozen=True)
class EvaluationSet:
    """The questions of one evaluation, by position among the test items and all relations."""

    texts: list[str]
    pictures: list[Path]
    edges: EdgeTable
    queries: Queries
    claims: LabelledPairs
    known: np.ndarray


@dataclass(frozen=True)
class Answers:
    """What one network made of them: Hit@5 of each query by similarity, cosines, and the odds of each claim.

    `types` are the cosines of each edge's items under each known relation, by similarity.
    """

    hits: dict[Similarity, np.ndarray]
    types: dict[Similarity, np.ndarray]
    log_odds: np.ndarray


def evaluate(config: EvaluateConfig) -> str:
    """Run the stage and return its closing summary.

    Raises:
        ArtifactError: a checkpoint or the prepared data is missing, damaged, or they do not belong together.
        InputError: too few test items for the questions.
    """
    prepared = Prepared.open(config.prepared)
    paths: dict[Objective, Path | None] = {
        "rcml": config.checkpoint,
        "clip": config.clip,
        "blind": config.blind,
    }
    exam = make_evaluation_set(prepared, config)
    networks: dict[str, Any] = {}
    checkpoints: dict[str, Checkpoint] = {}
    by_relation: list[dict[str, Any]] = []
    for name, path in paths.items():
        if path is None:
            continue
        checkpoint = Checkpoint.open(path)
        _check_fit(name, checkpoint, prepared, path)
        checkpoints[name] = checkpoint
        answers = answer_evaluation_set(checkpoint, exam, config)
        networks[checkpoint.metrics["objective"]] = figures(checkpoint, exam, answers, config)
        if name == "rcml":
            by_relation = figures_by_relation(checkpoint, exam, answers)
    tested = checkpoints["rcml"].metrics["objective"]
    report: dict[str, Any] = {
        "data": {
            "items": len(exam.texts),
            "edges": len(exam.edges),
            "queries": len(exam.queries.item),
            "claims": len(exam.claims.valid),
            "relations": len(exam.known),
            "candidates": config.candidates,
        },
        "chance": {
            "hit_at_5": min(1.0, HIT_AT / config.candidates),
            "relation_type_top_3": min(1.0, TOP / len(exam.known)),
            "relation_type_log_loss": float(np.log(len(exam.known))),
            "validity_accuracy": 0.5,
            "validity_auc": 0.5,
        },
        "networks": networks,
        "ratios": {
            rival: networks[tested]["hit_at_5"]["AVG"]["value"] / networks[rival]["hit_at_5"]["AVG"]["value"]
            for rival in ("clip", "blind")
            if rival in networks and rival != tested
        },
        "relations": by_relation,
    }
    parents = {name: checkpoint.manifest.digest for name, checkpoint in checkpoints.items()}
    with write_artifact(
        config.out, "report", config, {"prepared": prepared.manifest.digest, **parents}
    ) as draft:
        (draft.path / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (draft.path / "report.md").write_text(in_markdown(report), encoding="utf-8")
        draw_plots(report, draft.path)
    own = networks[tested]
    return (
        f"Evaluated on {len(exam.texts)} unseen items: AVG Hit@5 {own['hit_at_5']['AVG']['value']:.3f} "
        f"(chance {report['chance']['hit_at_5']:.3f}), relation-type Top-3 "
        f"{own['relation_type_top_3']['AVG']:.3f}, validity accuracy {own['validity_accuracy']:.3f}; "
        f"report in {config.out}"
    )


def make_evaluation_set(prepared: Prepared, config: EvaluateConfig) -> EvaluationSet:
    """Draw the questions from the test part.

    Raises:
        InputError: too few test items or pairs.
    """
    rng = np.random.default_rng(config.seed)
    items = [prepared.items[row] for row in prepared.rows(Split.TEST)]
    found = [edge for edge in prepared.edges if edge.split == Split.TEST]
    if not found:
        raise InputError(
            f"{prepared.path} has no test pairs. Give `rcml prepare` more data or a larger --test-share."
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


def answer_evaluation_set(checkpoint: Checkpoint, exam: EvaluationSet, config: EvaluateConfig) -> Answers:
    """Put all questions to one network."""
    encoder = Encoder.from_pretrained(checkpoint.path, config.device)
    encoding = encoder.encode_part(exam.texts, exam.pictures)
    return Answers(
        hits={one: retrieval_hits(encoding, exam.queries, one, HIT_AT) for one in Similarity},
        types={one: relation_type_scores(encoding, exam.edges, one, exam.known) for one in Similarity},
        log_odds=checkpoint.validity.log_odds(exam.claims.vectors(encoding, checkpoint.relation_vectors)),
    )


def figures(
    checkpoint: Checkpoint, exam: EvaluationSet, answers: Answers, config: EvaluateConfig
) -> dict[str, Any]:
    """All figures of one network; "before" and "after" are without and with its calibration."""
    hits = {}
    for similarity, found in answers.hits.items():
        low, high = interval(found, exam.queries.item, np.random.default_rng(config.seed))
        hits[similarity.value] = {"value": float(found.mean()), "low": low, "high": high}
    calibrations = {"before": UNCALIBRATED, "after": checkpoint.calibration}
    valid, truth = exam.claims.valid, np.searchsorted(exam.known, exam.edges.relation)
    validity = {name: one.validity_probability(answers.log_odds) for name, one in calibrations.items()}
    types = {
        similarity.value: {
            name: one.relation_probabilities(scores, similarity) for name, one in calibrations.items()
        }
        for similarity, scores in answers.types.items()
    }
    return {
        "hit_at_5": hits,
        "relation_type_top_3": {
            similarity.value: float(hit_at(TOP, scores, truth).mean())
            for similarity, scores in answers.types.items()
        },
        "relation_type_top_3_calibrated": {
            similarity: float(hit_at(TOP, probability["after"], truth).mean())
            for similarity, probability in types.items()
        },
        "relation_type_log_loss": {
            similarity: {name: log_loss(one, truth) for name, one in probability.items()}
            for similarity, probability in types.items()
        },
        "validity_accuracy": float(((validity["after"] >= THRESHOLD) == valid).mean()),
        "validity_auc": area_under_curve(answers.log_odds, valid),
        "validity_log_loss": {
            name: log_loss(np.column_stack([1 - one, one]), valid.astype(np.int64))
            for name, one in validity.items()
        },
        "validity_ece": {name: expected_calibration_error(one, valid) for name, one in validity.items()},
        "reliability": {name: Reliability.of(one, valid).as_json() for name, one in validity.items()},
        "calibration": checkpoint.calibration.version,
        "parameters": checkpoint.metrics["parameters"],
        "steps": checkpoint.metrics["steps"],
        "seconds": checkpoint.metrics["seconds"],
    }


def figures_by_relation(
    checkpoint: Checkpoint, exam: EvaluationSet, answers: Answers
) -> list[dict[str, Any]]:
    """What the questions about each relation show; None where the test part has none that do."""
    probability = checkpoint.calibration.validity_probability(answers.log_odds)
    hits, asked = answers.hits[Similarity.AVG], exam.queries.relation
    found = []
    for row in exam.known.tolist():
        relation = checkpoint.relations[row]
        claimed = exam.claims.pairs.relation == row
        valid = exam.claims.valid[claimed]
        found.append(
            {
                "relation_id": relation.relation_id,
                "description": relation.description,
                "queries": int((asked == row).sum()),
                "hit_at_5": float(hits[asked == row].mean()) if (asked == row).any() else None,
                "claims": len(valid),
                "validity_auc": area_under_curve(probability[claimed], valid),
                "validity_ece": expected_calibration_error(probability[claimed], valid),
            }
        )
    return found


def _check_fit(name: Objective, checkpoint: Checkpoint, prepared: Prepared, path: Path) -> None:
    if checkpoint.manifest.parents.get("prepared") != prepared.manifest.digest:
        raise MismatchError(
            f"{path} was not trained on {prepared.path} as it is now, so its test items may have been trained on. "
            "Train it again on this data, or name the data it was trained on."
        )
    objective = checkpoint.metrics["objective"]
    if name != "rcml" and objective != name:
        raise MismatchError(
            f"--{name} {path} was trained with --objective {objective}; a checkpoint of --objective {name} is needed."
        )
