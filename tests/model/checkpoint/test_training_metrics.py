"""Tests of reading and writing `metrics.json`, including keys of other versions of rcml."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.training_metrics import TrainingMetrics
from model.errors import ArtifactError

CONTENT: dict[str, Any] = {
    "objective": "rcml",
    "steps": 4,
    "best_step": 2,
    "validation_hit_at_5": 2 / 3,
    "validation_validity_accuracy": 0.1 + 0.2,
    "parameters": 78_177,
    "device": "cpu",
    "ranks": 1,
    "seconds": 2.0,
    "pairs_per_second": 842.0,
    "data_wait_share": 0.5,
    "history": [
        {"step": 2, "loss": 6.72969913482666, "validation_hit_at_5": 2 / 3},
        {"step": 4, "loss": 1e-7, "validation_hit_at_5": 0.625},
    ],
}


def write(folder: Path, content: dict[str, Any]) -> str:
    text = json.dumps(content, indent=2) + "\n"
    (folder / "metrics.json").write_text(text)
    return text


@pytest.mark.parametrize("more", [{}, {"weather": "fine", "wind": [1, 2.5]}])
def test_saves_loaded_metrics_byte_for_byte(more: dict[str, Any], tmp_path: Path) -> None:
    text = write(tmp_path, {**CONTENT, **more})
    metrics = TrainingMetrics.load(tmp_path)
    metrics.save(tmp_path)
    assert (tmp_path / "metrics.json").read_text() == text
    assert (metrics.history[1].loss, metrics.validation_hit_at_5) == (1e-7, 2 / 3)


def test_training_writes_known_keys_in_order(checkpoints: dict[str, Path]) -> None:
    text = (checkpoints["rcml"] / "metrics.json").read_text()
    assert list(json.loads(text)) == list(CONTENT)
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
    assert Checkpoint.open(checkpoints["rcml"]).metrics.objective == "rcml"


def test_rejects_file_without_required_key(tmp_path: Path) -> None:
    write(tmp_path, {name: value for name, value in CONTENT.items() if name != "objective"})
    with pytest.raises(
        ArtifactError,
        match=r"does not match this version of rcml \(missing or invalid: objective\)\. Train the checkpoint again",
    ):
        TrainingMetrics.load(tmp_path)
