"""`rcml train`: repeatable, learns a planted truth, and gives up in words when it goes astray."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.checkpoint import Checkpoint
from model.config import TrainConfig
from model.encoder import Encoder
from model.errors import ArtifactError, InputError, TrainingError
from model.prepared import Prepared
from model.questions import EdgeTable
from model.records import Split
from model.trainer import (
    Part,
    _batches,
    _pair_batch,
    _related,
    _schedule,
    _training_pairs,
    shift_and_mirror,
    train,
)

from .planted import edges_only_config, prepared_of, tiny_training

CHANCE = 5 / 21


def metrics_of(checkpoint: Path) -> dict[str, Any]:
    metrics = Checkpoint.open(checkpoint).metrics
    assert metrics.pop("seconds") >= 0
    return metrics


# Learning.


def test_the_loss_falls_and_a_planted_truth_is_learnt_in_a_few_steps(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", steps=30, learning_rate=3e-3, validate_every=10)
    train(config)
    metrics = metrics_of(config.out)
    losses = [entry["loss"] for entry in metrics["history"]]
    assert losses[0] > losses[1] > losses[2]
    assert metrics["validation_hit_at_5"] > 0.75 > 2 * CHANCE
    assert metrics["validation_validity_accuracy"] > 0.8


def test_two_runs_of_one_seed_give_the_same_weights_and_metrics(prepared: Path, tmp_path: Path) -> None:
    seeds = {"first": 0, "again": 0, "other": 1}
    for name, seed in seeds.items():
        train(tiny_training(prepared, tmp_path / name, seed=seed))
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in seeds)
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    assert not torch.equal(first["attention.key"], other["attention.key"])
    assert metrics_of(tmp_path / "first") == metrics_of(tmp_path / "again") != metrics_of(tmp_path / "other")


def test_the_weights_kept_are_those_of_the_best_validation(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", steps=12, validate_every=1, learning_rate=1e-2, patience=99
    )
    train(config)
    metrics = metrics_of(config.out)
    best = max(metrics["history"], key=lambda entry: entry["validation_hit_at_5"])
    assert (metrics["best_step"], metrics["validation_hit_at_5"]) == (
        best["step"],
        best["validation_hit_at_5"],
    )


def test_training_stops_early_when_validation_no_longer_improves(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(
        prepared, tmp_path / "out", steps=50, validate_every=1, learning_rate=1e-9, patience=3
    )
    train(config)
    metrics = metrics_of(config.out)
    assert metrics["steps"] == metrics["best_step"] + 3 < 50


def test_the_summary_tells_what_the_checkpoint_holds(prepared: Path, tmp_path: Path) -> None:
    summary = train(tiny_training(prepared, tmp_path / "out", objective="blind"))
    metrics = Checkpoint.open(tmp_path / "out").metrics
    assert summary.startswith("Trained blind for 4 steps in ")
    assert f"validation Hit@5 {metrics['validation_hit_at_5']:.3f}; checkpoint in {tmp_path}/out" in summary


# What it refuses.


def test_a_loss_that_is_not_finite_names_the_step_and_the_items(prepared: Path, tmp_path: Path) -> None:
    config = tiny_training(prepared, tmp_path / "out", temperature=1e-40)
    with pytest.raises(
        TrainingError, match=r"The loss became \S+ .*step 1 \(items \w+-\w+-\d, .*--temperature"
    ):
        train(config)
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(InputError, match="this machine has no CUDA device; use --device auto"):
        train(tiny_training(prepared, tmp_path / "out", device="cuda"))


def test_a_killed_training_leaves_no_checkpoint_and_the_next_one_says_so(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_training(prepared, tmp_path / "out", steps=100_000)
    (tmp_path / "options.json").write_text(config.model_dump_json())
    script = (
        "import sys; from pathlib import Path; from model.config import TrainConfig; from model.trainer import train; "
        "train(TrainConfig.model_validate_json(Path(sys.argv[1]).read_text()))"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "options.json")], cwd=root)
    while not (tmp_path / ".out.partial" / "cache" / "validation.npy").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(ArtifactError, match=r"There is no checkpoint at .*Its last run was interrupted"):
        Checkpoint.open(config.out)
    train(config.model_copy(update={"steps": 1}))
    assert "An earlier run was interrupted before out was finished; its remains" in capsys.readouterr().err
    assert Checkpoint.open(config.out).metrics["steps"] == 1


# Its parts.


def part_of(prepared: Prepared) -> Part:
    rows = prepared.rows(Split.TRAIN)
    place = {prepared.items[row].item_id: number for number, row in enumerate(rows)}
    relations = {relation.relation_id: number for number, relation in enumerate(prepared.relations)}
    edges = EdgeTable.of([edge for edge in prepared.edges if edge.split == Split.TRAIN], place, relations)
    return Part(text=None, pictures=range(len(rows)), edges=edges)  # type: ignore[arg-type]


def test_every_edge_and_every_item_with_itself_is_a_training_pair(prepared: Path, tmp_path: Path) -> None:
    part = part_of(Prepared.open(prepared))
    pairs = _training_pairs(part, tiny_training(prepared, tmp_path))
    selves = pairs.a == pairs.b
    assert pairs.a[selves].tolist() == list(range(len(part.pictures)))
    assert set(pairs.relation[selves].tolist()) == {0}
    assert pairs.take(np.flatnonzero(~selves)).relation.tolist() == part.edges.relation.tolist()


def test_clip_trains_on_self_pairs_alone(prepared: Path, tmp_path: Path) -> None:
    pairs = _training_pairs(
        part_of(Prepared.open(prepared)), tiny_training(prepared, tmp_path, objective="clip")
    )
    assert (pairs.a == pairs.b).all()


def test_an_epoch_shows_every_pair_once_but_for_its_incomplete_last_batch(
    prepared: Path, tmp_path: Path
) -> None:
    pairs = EdgeTable(*np.tile(np.arange(10), (3, 1)))
    batches = _batches(pairs, tiny_training(prepared, tmp_path, batch_size=4), np.random.default_rng(0))
    epochs = [[*next(batches).a.tolist(), *next(batches).a.tolist()] for _ in range(2)]
    assert [len(set(epoch)) for epoch in epochs] == [8, 8]
    assert epochs[0] != epochs[1]


def test_a_batch_has_all_pairs_among_its_items_in_both_orders_and_selves_once() -> None:
    # Items 0 to 3, each paired with itself; 0-1 and 2-3 are edges. The batch holds 0, 1 and 3.
    selves = np.arange(4)
    edges = EdgeTable(np.array([0, 2]), np.array([1, 3]), np.array([1, 2]))
    related = _related(Part(text=None, pictures=range(4), edges=edges))  # type: ignore[arg-type]
    pairs = EdgeTable(*map(np.append, (edges.a, edges.b, edges.relation), (selves, selves, np.zeros(4, int))))
    batch = _pair_batch(pairs, np.array([0, 1, 3]), related, torch.device("cpu"))
    triples = zip(batch.anchor.tolist(), batch.positive.tolist(), batch.relation.tolist(), strict=True)
    assert sorted(triples) == [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (2, 2, 0)]
    assert batch.related.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    config = TrainConfig(prepared=Path("p"), out=Path("o"), steps=100, warmup_share=0.1)
    rates = [_schedule(step, config) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)
    assert all(later < earlier for earlier, later in pairwise(rates[9:]))


def test_augmentation_keeps_shape_and_range_and_moves_every_picture() -> None:
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    moved = shift_and_mirror(pixels, torch.Generator().manual_seed(1))
    assert moved.shape == pixels.shape
    assert pixels.min() <= moved.min() <= moved.max() <= pixels.max()
    assert ((moved - pixels).abs().mean(dim=(1, 2, 3)) > 0.01).all()


def test_augmentation_mirrors_half_of_the_pictures_and_moves_none_far() -> None:
    pixels = torch.zeros(200, 3, 64, 64)
    pixels[:, :, 30:34, 10:14] = 1.0  # a spot on the left at half height
    moved = shift_and_mirror(pixels, torch.Generator().manual_seed(2)).mean(dim=1)
    weight = moved / moved.sum(dim=(1, 2), keepdim=True)
    x = (weight.sum(dim=1) * torch.arange(64)).sum(dim=1)
    y = (weight.sum(dim=2) * torch.arange(64)).sum(dim=1)
    assert (x > 32).float().mean().item() == pytest.approx(0.5, abs=0.1)
    # 6 % of 64 pixels, and a tenth of the distance from the middle
    assert (torch.minimum(x, 63 - x) - 11.5).abs().max() < 0.06 * 64 + 0.1 * 20.5 + 1
    assert (y - 31.5).abs().max() < 0.06 * 64 + 1


def test_the_checkpoint_encodes_as_the_network_did_when_it_was_validated(
    checkpoints: dict[str, Path],
) -> None:
    checkpoint = Checkpoint.open(checkpoints["rcml"])
    encoder = Encoder.open(checkpoints["rcml"], "cpu")
    assert encoder.relations == checkpoint.relations
    np.testing.assert_allclose(encoder.relation_vectors, checkpoint.relation_vectors, atol=1e-6)
