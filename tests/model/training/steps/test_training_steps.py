"""Tests of training steps: casts of the weights, and what happens to a step whose figures are read later."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from model.errors import TrainingError
from model.training.run_state import Run
from model.training.steps.gradients import Gradients
from model.training.tracking import Log
from model.training.train import train
from tests.model.planted import tiny_training
from tests.model.training.steps.test_gradients import compare, gradients_of, set_up


class CountingCasts(TorchDispatchMode):
    """Count of the casts of each weight to bf16."""

    def __init__(self, weights: dict[str, nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {weight.data_ptr(): name for name, weight in weights.items()}
        self.casts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if str(func) == "aten._to_copy.default" and kwargs.get("dtype") == torch.bfloat16:
            name = self._names.get(args[0].data_ptr())
            if name is not None and args[0].dtype == torch.float32:
                self.casts[name] += 1
        return func(*args, **kwargs)


@pytest.mark.parametrize(("micro_batch", "most"), [(None, 1), (3, 3)])
def test_weights_are_cast_to_bf16_once_per_step_and_not_once_per_micro_batch(
    micro_batch: int | None, most: int, prepared: Path
) -> None:
    network, batches, whole = set_up(prepared, micro_batch=micro_batch)
    network.float()
    batch = batches.at(1)
    assert len(batch.items) > 9  # more than three micro-batches
    expected = whole.of(batch, step=1).item(), gradients_of(network)
    network, _, rounded = set_up(prepared, micro_batch=micro_batch, bf16=True)
    network.float()
    with CountingCasts(dict(network.named_parameters())) as counting:
        loss = rounded.of(batch, step=1)
    towers = {name: count for name, count in counting.casts.items() if "_tower" in name or "_model." in name}
    assert len(towers) > 10
    assert max(towers.values()) <= most
    # Every weight still gets its whole gradient, whether or not it was cast before without gradient.
    assert loss.item() == pytest.approx(expected[0], rel=2e-2)
    ratio, cosine = compare(gradients_of(network), expected[1])
    assert ratio == pytest.approx(1.0, abs=0.05)
    assert cosine > 0.98


def spoil(monkeypatch: pytest.MonkeyPatch, bad: int) -> None:
    """Make the loss of step `bad` not finite."""
    original = Gradients.of

    def of(self: Gradients, batch: Any, step: int) -> Tensor:
        loss = original(self, batch, step)
        return loss * float("nan") if step == bad else loss

    monkeypatch.setattr(Gradients, "of", of)


def test_error_names_the_step_that_failed_although_it_is_read_later(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 3)
    with pytest.raises(TrainingError, match="diverged at step 3: the loss is nan"):
        train(tiny_training(prepared, tmp_path / "out", steps=9, validate_every=9, save_every=9))
    assert json.loads((tmp_path / "out.run" / "not-finite.json").read_text())["step"] == 3


@pytest.mark.parametrize("option", ["validate_every", "save_every"])
def test_weights_of_step_that_failed_are_neither_saved_nor_validated(
    option: str, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, 4)
    saved: list[int] = []
    original = Run.save

    def save(self: Run, state: Any, *others: Any) -> None:
        saved.append(state.step)
        original(self, state, *others)

    monkeypatch.setattr(Run, "save", save)
    options = {"validate_every": 9, "save_every": 9, option: 2}
    with pytest.raises(TrainingError, match="diverged at step 4"):
        train(tiny_training(prepared, tmp_path / "out", steps=9, **options))
    assert saved == ([2] if option == "save_every" else [])
    if saved:
        weights = load_file(tmp_path / "out.run" / "last.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_speed_of_a_validated_step_is_that_of_the_step_itself(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, pairs = Gradients.of, {}

    def of(self: Gradients, batch: Any, step: int) -> Tensor:
        time.sleep(0.02)
        pairs[step] = batch.pairs.count
        return original(self, batch, step)

    @contextmanager
    def open_logs(*_: object) -> Iterator[Log]:
        yield lambda step, figures: seconds.append(
            pairs[step] / figures["pairs_per_second"] if "loss" in figures else 1.0
        )

    seconds: list[float] = []
    monkeypatch.setattr(Gradients, "of", of)
    monkeypatch.setattr("model.training.train.open_logs", open_logs)
    train(tiny_training(prepared, tmp_path / "out", steps=4, validate_every=2))
    assert len(seconds) == 6
    assert min(seconds) >= 0.02
