"""Tests of `rcml train`: it is reproducible, learns planted relations, and reports failures clearly."""

import json
import math
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.training_metrics import TrainingMetrics
from model.config import Objective, TrainConfig
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import InputError, TrainingError
from model.records import Split
from model.training.optimizer import LOSS_RATE, schedule
from model.training.train import train
from tests.model.planted import edges_only_config, prepared_of, tiny_training

CHANCE = 5 / 21


def metrics_of(checkpoint: Path) -> TrainingMetrics:
    """Return the metrics of a checkpoint, with its times checked and then set to 0."""
    metrics = Checkpoint.open(checkpoint).metrics
    assert min(metrics.seconds, metrics.pairs_per_second, metrics.data_wait_share) >= 0
    return metrics.model_copy(update={"seconds": 0.0, "pairs_per_second": 0.0, "data_wait_share": 0.0})


# Training.


def test_loss_falls_and_planted_relations_are_learnt_in_few_steps(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", steps=30, learning_rate=3e-3, validate_every=10)
    train(config)
    metrics = metrics_of(config.out)
    losses = [entry.loss for entry in metrics.history]
    assert losses[0] > losses[1] > losses[2]
    assert metrics.validation_hit_at_5 > 0.75 > 2 * CHANCE
    assert metrics.validation_validity_accuracy > 0.8


def test_warns_about_uniform_attention(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_training(prepared, tmp_path / "flat", attention_gain=0.001))
    said = " ".join("".join(capsys.readouterr()).split())
    assert "Warning: The attention over the words is almost uniform: its entropy is 1.0000 of log(" in said
    assert "Warning: The attention over the patches is almost uniform" in said
    train(tiny_training(prepared, tmp_path / "out", attention_gain=4.0))
    assert "uniform" not in "".join(capsys.readouterr())


def test_same_seed_gives_same_weights_and_metrics(prepared: Path, tmp_path: Path) -> None:
    seeds = {"first": 0, "again": 0, "other": 1}
    for name, seed in seeds.items():
        train(tiny_training(prepared, tmp_path / name, seed=seed))
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in seeds)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["attention.key"], other["attention.key"])
    assert metrics_of(tmp_path / "first") == metrics_of(tmp_path / "again") != metrics_of(tmp_path / "other")


def test_same_seed_gives_same_calibration_on_validation_split(prepared: Path, tmp_path: Path) -> None:
    for name, seed in {"first": 0, "again": 0, "other": 1}.items():
        train(tiny_training(prepared, tmp_path / name, seed=seed))
    first, again, other = (
        Checkpoint.open(tmp_path / name).calibration for name in ("first", "again", "other")
    )
    assert first == again != other
    edges = sum(edge.split == Split.VALIDATION for edge in Prepared.open(prepared).edges)
    assert (first.claims, first.edges) == (2 * edges, edges)


def test_keeps_weights_of_best_validation(prepared: Path, tmp_path: Path) -> None:
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


def test_stops_early_when_validation_no_longer_improves(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", steps=50, validate_every=1, learning_rate=1e-9, patience=3
    )
    train(config)
    metrics = metrics_of(config.out)
    assert metrics.steps == metrics.best_step + 3 < 50


@pytest.mark.parametrize("objective", ["siglip", "unicl", "declip"])
def test_losses_of_rivals_fall_and_their_checkpoints_are_those_of_clip(
    objective: Objective, prepared: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", objective=objective, steps=30, learning_rate=3e-3, validate_every=10
    )
    train(config)
    metrics = metrics_of(config.out)
    losses = [entry.loss for entry in metrics.history]
    assert losses[0] > losses[-1]
    assert metrics.objective == objective
    found, clip = (load_file(folder / "model.safetensors") for folder in (config.out, checkpoints["clip"]))
    assert {name: tensor.shape for name, tensor in found.items()} == {
        name: tensor.shape for name, tensor in clip.items()
    }
    network, other = (
        json.loads((folder / "network.json").read_text()) for folder in (config.out, checkpoints["clip"])
    )
    assert network == {**other, "objective": objective}


def test_bias_and_temperature_of_siglip_are_trained_and_kept_with_the_run(
    prepared: Path, tmp_path: Path
) -> None:
    config = tiny_training(prepared, tmp_path / "out", objective="siglip", steps=8, learning_rate=1e-5)
    train(config)
    last = load_file(tmp_path / "out.run" / "last.safetensors")
    # Adam moves a scalar by about its rate at each step; the warm-up and the decay sum to about half of the steps.
    assert abs(last["loss.bias"].item() + 10) > 8 * LOSS_RATE / 4
    assert abs(last["loss.log_temperature"].item() - math.log(10)) > 1e-2


def test_declip_without_augmented_pictures_is_rejected() -> None:
    options = {"prepared": Path("p"), "out": Path("o"), "objective": "declip", "augment": False}
    with pytest.raises(ValidationError, match=r"Omit --no-augment, or use --tune frozen"):
        TrainConfig.model_validate(options)
    TrainConfig.model_validate({**options, "backbone": "towers", "tune": "frozen"})


def test_summary_describes_checkpoint(prepared: Path, tmp_path: Path) -> None:
    summary = train(tiny_training(prepared, tmp_path / "out", objective="blind"))
    metrics = Checkpoint.open(tmp_path / "out").metrics
    assert summary.startswith("Trained blind for 4 steps in ")
    assert (
        f"validation Hit@5 {metrics.validation_hit_at_5:.3f}. The checkpoint is in {tmp_path}/out." in summary
    )


# Errors.


def test_error_for_loss_that_is_not_finite_names_step_and_items(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", temperature=1e-40)
    with pytest.raises(
        TrainingError, match=r"step 1: the loss is \S+ and .* contains the items \w+-\w+-\d, .*--temperature"
    ):
        train(config)
    assert [path.name for path in tmp_path.iterdir()] == ["out.run"]
    listed = json.loads((tmp_path / "out.run" / "not-finite.json").read_text())
    assert listed["step"] == 1
    assert set(listed["items"]) <= {item.item_id for item in Prepared.open(prepared).items}
    assert len(listed["items"]) > 8
    train(tiny_training(prepared, tmp_path / "out", steps=1))  # the failed run does not block a new one


@pytest.mark.parametrize("temperature", [3e-37, 2e-37, 1e-37, 5e-38])
def test_never_writes_checkpoint_with_weights_that_are_not_finite(
    temperature: float, prepared: Path, tmp_path: Path
) -> None:
    # The first loss may be finite although the gradient is not, and there is no second step to reveal it.
    config = tiny_training(prepared, tmp_path / "out", steps=1, temperature=temperature)
    with suppress(TrainingError):
        train(config)
        weights = load_file(config.out / "model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


def test_error_for_too_few_validation_items_names_an_option_and_a_value(tmp_path: Path) -> None:
    prepared = prepared_of(edges_only_config(tmp_path / "few"))
    with pytest.raises(
        InputError, match=r"has 4 validation items, .* Run `rcml prepare` with --validation-share 0\.40"
    ) as refusal:
        train(tiny_training(prepared.path, tmp_path / "out"))
    assert "--candidates" not in str(refusal.value)  # `rcml train` has no such option


def test_a_domain_with_too_few_validation_items_is_named_by_its_folder(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = prepared_of(edges_only_config(tmp_path / "few"))
    train(tiny_training((prepared, few.path), tmp_path / "out", steps=1))
    told = capsys.readouterr().err
    assert (
        f"Warning: {few.path} has too few validation items for queries, so early stopping ignores it." in told
    )


def test_rejects_prepared_data_without_training_pairs(tmp_path: Path) -> None:
    prepared = prepared_of(edges_only_config(tmp_path / "none", edges=[("a", "b")]))
    assert prepared.splits[0] != prepared.splits[1]
    with pytest.raises(
        InputError, match=r"has no pairs in the train split\. Use more data, or relax the thresholds"
    ):
        train(tiny_training(prepared.path, tmp_path / "out"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
def test_rejects_cuda_if_not_available(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this machine has no CUDA device\. Use --device auto"):
        train(tiny_training(prepared, tmp_path / "out", device="cuda"))


# Components.


def test_learning_rate_rises_to_peak_and_falls_to_zero() -> None:
    config = TrainConfig(prepared=Path("p"), out=Path("o"), steps=100, warmup_share=0.1)
    rates = [schedule(step, config) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))


def test_checkpoint_encodes_relations_like_trained_network(
    checkpoints: dict[str, Path],
) -> None:
    checkpoint = Checkpoint.open(checkpoints["rcml"])
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    assert encoder.relations == checkpoint.relations
    np.testing.assert_allclose(encoder.relation_vectors, checkpoint.relation_vectors, atol=1e-6)


def test_centred_checkpoint_treats_free_text_like_trained_relation(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "centred", conditioning="centred")
    train(config)
    encoder = Encoder.from_pretrained(config.out)
    assert encoder.network.config.conditioning == "centred"
    encoding = encoder.read_items(["red mug"], [None], tokens=True)()
    assert encoding.tokens is not None
    for position in (1, 2):
        relation = encoder.read_relation(encoder.relations[position].description)
        found = relation.vectors(encoding.tokens.text)
        np.testing.assert_allclose(found, encoding.text[:, position], rtol=0, atol=2e-3)
        assert relation.nearest[0] == position


@pytest.mark.parametrize(("objective", "written"), [("rcml", "centred"), ("blind", None), ("clip", None)])
def test_only_rcml_is_centred_and_paper_conditioning_is_not_written(
    objective: Objective, written: str | None, prepared: Path, tmp_path: Path
) -> None:
    config = tiny_training(prepared, tmp_path / "out", objective=objective, conditioning="centred", steps=1)
    train(config)
    assert json.loads((config.out / "network.json").read_text()).get("conditioning") == written
