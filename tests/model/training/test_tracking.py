"""Tests of the logging of training metrics."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.checkpoint.checkpoint import Checkpoint
from model.errors import InputError
from model.training.train import train
from tests.model.planted import tiny_training


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: {one.step: one.value for one in events.Scalars(name)} for name in events.Tags()["scalars"]}


def test_tensorboard_has_metrics_of_every_step_and_validation(prepared: Path, tmp_path: Path) -> None:
    train(tiny_training(prepared, tmp_path / "out", steps=4, validate_every=2))
    found = scalars(tmp_path / "out.run")
    for name in ("loss", "rate", "gradient_norm", "pairs_per_second"):
        assert list(found[name]) == [1, 2, 3, 4]
    history = Checkpoint.open(tmp_path / "out").metrics.history
    for entry, steps in zip(history, ((1, 2), (3, 4)), strict=True):
        assert entry.loss == pytest.approx(sum(found["loss"][step] for step in steps) / 2, rel=1e-5)
        assert found["validation_hit_at_5"][int(entry.step)] == pytest.approx(entry.validation_hit_at_5)
    assert found["rate"][1] == pytest.approx(1e-3)
    assert set(found["data_wait_share"]) == {2, 4}


class Tracker(ModuleType):
    """Fake tracker with the functions of wandb and trackio that records all calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[tuple[str, Any]] = []

    def init(self, project: str, name: str, config: dict[str, Any]) -> None:
        self.told.append(("init", (project, name, config["temperature"])))

    def log(self, figures: dict[str, float], step: int) -> None:
        self.told.append(("log", (step, sorted(figures))))

    def finish(self) -> None:
        self.told.append(("finish", None))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_requested_tracker_receives_all_metrics(
    name: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(name)
    monkeypatch.setitem(sys.modules, name, tracker)
    train(tiny_training(prepared, tmp_path / "out", steps=1, track=(name,)))
    step = ["gradient_norm", "loss", "pairs_per_second", "rate"]
    assert tracker.told == [
        ("init", ("rcml", "out", 0.1)),
        ("log", (1, step)),
        ("log", (1, ["data_wait_share", "validation_hit_at_5"])),
        ("finish", None),
    ]


def test_missing_tracker_is_reported_with_command_to_install_it(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"--track wandb requires a package .* Run `pip install wandb`"):
        train(tiny_training(prepared, tmp_path / "out", track=("wandb",)))
    assert list(tmp_path.iterdir()) == []  # the error is raised before anything is written


def test_training_without_tensorboard_prints_note_and_continues(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(tiny_training(prepared, tmp_path / "out", steps=1))
    assert capsys.readouterr().err.count("pip install tensorboard") == 1
    assert Checkpoint.open(tmp_path / "out").metrics.steps == 1
