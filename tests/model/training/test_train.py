"""`rcml train`: repeatable, learns a planted truth, and gives up in words when it goes astray."""

import json
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.training_metrics import TrainingMetrics
from model.config import TrainConfig
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import InputError, TrainingError
from model.records import Split
from model.training.optimizer import schedule
from model.training.train import train
from tests.model.planted import edges_only_config, prepared_of, tiny_training

CHANCE = 5 / 21


def metrics_of(checkpoint: Path) -> TrainingMetrics:
    """The metrics of a checkpoint, whose times are checked and then left out."""
    metrics = Checkpoint.open(checkpoint).metrics
    assert min(metrics.seconds, metrics.pairs_per_second, metrics.data_wait_share) >= 0
    return metrics.model_copy(update={"seconds": 0.0, "pairs_per_second": 0.0, "data_wait_share": 0.0})


# Learning.


def test_the_loss_falls_and_a_planted_truth_is_learnt_in_a_few_steps(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", steps=30, learning_rate=3e-3, validate_every=10)
    train(config)
    metrics = metrics_of(config.out)
    losses = [entry.loss for entry in metrics.history]
    assert losses[0] > losses[1] > losses[2]
    assert metrics.validation_hit_at_5 > 0.75 > 2 * CHANCE
    assert metrics.validation_validity_accuracy > 0.8


def test_two_runs_of_one_seed_give_the_same_weights_and_metrics(prepared: Path, tmp_path: Path) -> None:
    seeds = {"first": 0, "again": 0, "other": 1}
    for name, seed in seeds.items():
        train(tiny_training(prepared, tmp_path / name, seed=seed))
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in seeds)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["attention.key"], other["attention.key"])
    assert metrics_of(tmp_path / "first") == metrics_of(tmp_path / "again") != metrics_of(tmp_path / "other")


def test_two_runs_of_one_seed_are_calibrated_alike_on_the_validation_part(
    prepared: Path, tmp_path: Path
) -> None:
    for name, seed in {"first": 0, "again": 0, "other": 1}.items():
        train(tiny_training(prepared, tmp_path / name, seed=seed))
    first, again, other = (
        Checkpoint.open(tmp_path / name).calibration for name in ("first", "again", "other")
    )
    assert first == again != other
    edges = sum(edge.split == Split.VALIDATION for edge in Prepared.open(prepared).edges)
    assert (first.claims, first.edges) == (2 * edges, edges)


def test_the_weights_kept_are_those_of_the_best_validation(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", steps=12, validate_every=1, learning_rate=1e-2, patience=99
    )
    train(config)
    metrics = metrics_of(config.out)
    best = max(metrics.history, key=lambda entry: entry.validation_hit_at_5)
    assert (metrics.best_step, metrics.validation_hit_at_5) == (
        best.step,
        best.validation_hit_at_5,
    )


def test_training_stops_early_when_validation_no_longer_improves(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", steps=50, validate_every=1, learning_rate=1e-9, patience=3
    )
    train(config)
    metrics = metrics_of(config.out)
    assert metrics.steps == metrics.best_step + 3 < 50


def test_the_summary_tells_what_the_checkpoint_holds(prepared: Path, tmp_path: Path) -> None:
    summary = train(tiny_training(prepared, tmp_path / "out", objective="blind"))
    metrics = Checkpoint.open(tmp_path / "out").metrics
    assert summary.startswith("Trained blind for 4 steps in ")
    assert f"validation Hit@5 {metrics.validation_hit_at_5:.3f}; checkpoint in {tmp_path}/out" in summary


# What it refuses.


def test_a_loss_that_is_not_finite_names_the_step_and_the_items(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", temperature=1e-40)
    with pytest.raises(
        TrainingError, match=r"The loss became \S+ .*step 1 \(items \w+-\w+-\d, .*--temperature"
    ):
        train(config)
    assert [path.name for path in tmp_path.iterdir()] == ["out.run"]
    listed = json.loads((tmp_path / "out.run" / "not-finite.json").read_text())
    assert listed["step"] == 1
    assert set(listed["items"]) <= {item.item_id for item in Prepared.open(prepared).items}
    assert len(listed["items"]) > 8
    train(tiny_training(prepared, tmp_path / "out", steps=1))  # and it is no obstacle to another attempt


@pytest.mark.parametrize("temperature", [3e-37, 2e-37, 1e-37, 5e-38])
def test_weights_that_are_no_longer_finite_are_never_a_checkpoint(
    temperature: float, prepared: Path, tmp_path: Path
) -> None:
    # Here the loss is still finite, or its gradient is not, and no second step comes to notice.
    config = tiny_training(prepared, tmp_path / "out", steps=1, temperature=temperature)
    with suppress(TrainingError):
        train(config)
        weights = load_file(config.out / "model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_too_few_validation_items_are_refused_in_words_that_fit_training(tmp_path: Path) -> None:
    prepared = prepared_of(edges_only_config(tmp_path / "few"))
    with pytest.raises(InputError, match=r"Only \d+ items can serve as negatives") as refusal:
        train(tiny_training(prepared.path, tmp_path / "out"))
    assert "--candidates" not in str(refusal.value)  # `rcml train` has no such option


def test_prepared_data_without_pairs_is_refused(tmp_path: Path) -> None:
    prepared = prepared_of(edges_only_config(tmp_path / "none", edges=[]))
    with pytest.raises(InputError, match=r"has no train pairs\. Give it more data or loosen the filters"):
        train(tiny_training(prepared.path, tmp_path / "out"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_is_refused_where_there_is_none(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this machine has no CUDA device\. Use --device auto"):
        train(tiny_training(prepared, tmp_path / "out", device="cuda"))


# Its parts.


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = TrainConfig(prepared=Path("p"), out=Path("o"), steps=100, warmup_share=0.1)
    rates = [schedule(step, config) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))


def test_the_checkpoint_encodes_as_the_network_did_when_it_was_validated(
    checkpoints: dict[str, Path],
) -> None:
    checkpoint = Checkpoint.open(checkpoints["rcml"])
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    assert encoder.relations == checkpoint.relations
    np.testing.assert_allclose(encoder.relation_vectors, checkpoint.relation_vectors, atol=1e-6)
