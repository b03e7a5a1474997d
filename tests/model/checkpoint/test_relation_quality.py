"""Tests of reading the figures of each relation from a report, and of rejecting unsuitable reports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from model.artifact import open_artifact, write_artifact
from model.checkpoint.relation_quality import Quality
from model.config import EvaluateConfig
from model.errors import ArtifactError, MismatchError
from model.evaluation.evaluate import evaluate

ROOT = Path(__file__).parents[3]
CHECKPOINT = "c0ffee" * 10


class NoOptions(BaseModel):
    """Empty options for a report that a test writes."""


def write_report(folder: Path, **content: object) -> Path:
    with write_artifact(folder, "report", NoOptions(), {"rcml": CHECKPOINT}) as draft:
        (draft.path / "report.json").write_text(json.dumps(content))
    return folder


def test_figures_match_report(checkpoints: dict[str, Path], prepared: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    evaluate(
        EvaluateConfig(
            checkpoint=checkpoints["rcml"], prepared=prepared, out=out, efficiency=False, device="cpu"
        )
    )
    quality = Quality.open(out, open_artifact(checkpoints["rcml"], "checkpoint").digest)
    told = json.loads((out / "report.json").read_text())["relations"]
    assert {name: one.hit_at_5 for name, one in quality.relations.items()} == {
        one["relation_id"]: one["hit_at_5"] for one in told
    }
    assert quality.relations["shape"].validity_ece == told[1]["validity_ece"]
    assert quality.digest == open_artifact(out, "report").digest


def test_unmeasured_figures_are_none(tmp_path: Path) -> None:
    office = {
        "relation_id": "office", "description": "Worn at the office.", "queries": 0, "hit_at_5": None, "claims": 3,
        "validity_auc": None, "validity_ece": 0.25,
    }  # fmt: skip
    found = Quality.open(write_report(tmp_path / "report", relations=[office]), CHECKPOINT).relations[
        "office"
    ]
    assert (found.queries, found.hit_at_5, found.validity_auc, found.validity_ece) == (0, None, None, 0.25)


def test_rejects_report_of_another_checkpoint_and_names_both_digests(tmp_path: Path) -> None:
    report = write_report(tmp_path / "report", relations=[])
    with pytest.raises(
        MismatchError, match=r"belongs to checkpoint c0ffeec0ffee, not to 0{12}\. Run `rcml evaluate`"
    ):
        Quality.open(report, "0" * 64)


def test_rejects_report_without_figures_by_relation(tmp_path: Path) -> None:
    report = write_report(tmp_path / "report", networks={})
    with pytest.raises(ArtifactError, match=r"no figures by relation.*Run `rcml evaluate` again"):
        Quality.open(report, CHECKPOINT)


def test_rejects_folder_that_is_not_a_report(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(ArtifactError, match="is a checkpoint, but a report is required"):
        Quality.open(checkpoints["rcml"], CHECKPOINT)


def test_imports_without_torch() -> None:
    code = (
        "import sys, model.checkpoint.relation_quality\n"
        "print({'torch', 'transformers', 'sklearn', 'scipy'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout == "set()\n"
