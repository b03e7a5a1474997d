"""`rcml evaluate`: a checkpoint on items it never saw, beside chance and beside its two rivals.

All networks answer the same questions: the same queries with the same random negatives, the same edges, the
same claims. `report.json` holds every figure (its keys are documented in docs/artifacts.md).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .artifact import write_artifact
from .checkpoint import Checkpoint
from .config import EvaluateConfig, Objective
from .encoder import Encoder
from .errors import InputError, MismatchError
from .metrics import interval, relation_type_hits, retrieval_hits
from .prepared import Prepared
from .questions import Claims, EdgeTable, Queries, draw_claims, draw_queries
from .records import Similarity, Split
from .report import draw_plots, in_markdown
from .validity import THRESHOLD

HIT_AT = 5
TOP = 3


@dataclass(frozen=True)
class Exam:
    """The questions of one evaluation, by position among the test items and all relations."""

    texts: list[str]
    pictures: list[Path]
    edges: EdgeTable
    queries: Queries
    claims: Claims
    known: np.ndarray


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
    exam = set_exam(prepared, config)
    networks: dict[str, Any] = {}
    checkpoints: dict[str, Checkpoint] = {}
    for name, path in paths.items():
        if path is None:
            continue
        checkpoint = Checkpoint.open(path)
        _check_fit(name, checkpoint, prepared, path)
        checkpoints[name] = checkpoint
        networks[checkpoint.metrics["objective"]] = take_exam(checkpoint, exam, config)
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
            "validity_accuracy": 0.5,
        },
        "networks": networks,
        "ratios": {
            rival: networks[tested]["hit_at_5"]["AVG"]["value"] / networks[rival]["hit_at_5"]["AVG"]["value"]
            for rival in ("clip", "blind")
            if rival in networks and rival != tested
        },
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


def set_exam(prepared: Prepared, config: EvaluateConfig) -> Exam:
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
    return Exam(
        texts=[item.text for item in items],
        pictures=[prepared.path / item.picture for item in items],
        edges=edges,
        queries=draw_queries(edges, config.candidates, config.max_queries, rng),
        claims=draw_claims(edges, known, config.max_queries, rng),
        known=known,
    )


def take_exam(checkpoint: Checkpoint, exam: Exam, config: EvaluateConfig) -> dict[str, Any]:
    """All figures of one network."""
    encoder = Encoder.from_pretrained(checkpoint.path, config.device)
    encoding = encoder.encode_part(exam.texts, exam.pictures)
    hits = {}
    for similarity in Similarity:
        found = retrieval_hits(encoding, exam.queries, similarity, HIT_AT)
        low, high = interval(found, exam.queries.item, np.random.default_rng(config.seed))
        hits[similarity.value] = {"value": float(found.mean()), "low": low, "high": high}
    probability = checkpoint.validity.probability(exam.claims.vectors(encoding, checkpoint.relation_vectors))
    return {
        "hit_at_5": hits,
        "relation_type_top_3": {
            similarity.value: float(
                relation_type_hits(encoding, exam.edges, similarity, exam.known, TOP).mean()
            )
            for similarity in Similarity
        },
        "validity_accuracy": float(((probability >= THRESHOLD) == exam.claims.valid).mean()),
        "parameters": checkpoint.metrics["parameters"],
        "steps": checkpoint.metrics["steps"],
        "seconds": checkpoint.metrics["seconds"],
    }


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
