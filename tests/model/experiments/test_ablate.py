"""`rcml ablate`: its figures are those of `rcml evaluate`, and the same command finishes an interrupted study."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.artifact import open_artifact
from model.config import AblateConfig, EvaluateConfig, TrainConfig
from model.errors import InputError
from model.evaluation.evaluate import evaluate
from model.evaluation.figures import EvaluationReport
from model.experiments import ablate as command
from model.experiments import studies
from model.experiments.ablate import ablate
from model.experiments.ablation_report import AblationReport
from model.network.load_backbone import small_backbone
from model.network.processor import Preprocessor
from model.similarity import Similarity
from model.training.run_state import Run
from model.training.train import train
from service.cli import main
from tests.model.planted import TINY

VARIANTS = ["full", "w/o inter edges", "w/o intra loss", "w/o descriptions", "w/o centring", "w/o bias"]
FOLDERS = [f"{name.replace('w/o', 'without').replace(' ', '-')}-seed0" for name in VARIANTS]


BIASED = {"conditioning": "centred+bias"}
"""Conditioning with every part that an ablation can remove; a network from scratch has the paper's by default."""


def study(prepared: Path, out: Path, **options: Any) -> AblateConfig:
    chosen = {"small": TINY, "steps": 2, "batch_size": 64, "device": "cpu", **BIASED, **options}
    return AblateConfig(prepared=prepared, out=out, **chosen)


def report_in(out: Path) -> AblationReport:
    return AblationReport.model_validate_json((out / "ablation.json").read_text())


def digests(out: Path) -> dict[str, str]:
    return {
        path.name: open_artifact(path, "checkpoint").digest
        for path in (out / "runs").iterdir()
        if path.suffix != ".run"
    }


@pytest.fixture(scope="module")
def finished(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    ablate(study(prepared, out))
    return out


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Record the trainings that `rcml ablate` starts."""
    found: list[TrainConfig] = []

    def recorded(config: TrainConfig) -> str:
        found.append(config)
        return train(config)

    monkeypatch.setattr(command, "train", recorded)
    return found


# Figures.


@pytest.mark.parametrize("name", ["w/o inter edges", "w/o descriptions"])
def test_figures_equal_those_of_evaluate(name: str, finished: Path, prepared: Path, tmp_path: Path) -> None:
    own = {one.name: one for one in report_in(finished).variants}
    rival = Path(own[name].trained[0].path)
    evaluate(
        EvaluateConfig(
            checkpoint=(finished / "runs" / "full-seed0",),
            against=(rival,),
            prepared=prepared,
            out=tmp_path / "report",
            efficiency=False,
            device="cpu",
        )
    )
    report = EvaluationReport.model_validate_json((tmp_path / "report" / "report.json").read_text())
    for variant, network in (
        (own["full"], report.networks["rcml"]),
        (own[name], report.networks["against"]),
    ):
        assert variant.hit_at_5 == network.hit_at_5
        assert variant.relation_type_top_3 == network.relation_type_top_3_calibrated[Similarity.AVG]
        assert variant.validity_accuracy == network.validity_accuracy
    compared = report.retrieval["random"].comparisons["against"]
    drop = own[name].drop
    assert drop is not None
    assert (drop.difference, drop.p) == (compared.difference, compared.p)
    assert compared.p <= drop.p_holm <= 1  # there are more rivals


def test_report_names_variants_reference_and_trainings(finished: Path, prepared: Path) -> None:
    report = report_in(finished)
    assert [one.name for one in report.variants] == VARIANTS
    assert [one.name for one in report.variants if one.drop is None] == [report.reference] == ["full"]
    assert report.left_out == {"frozen": "it needs a pretrained backbone (--backbone)"}
    assert report.prepared == open_artifact(prepared, "prepared").digest
    trained = {Path(run.path).name: run.digest for one in report.variants for run in one.trained}
    assert trained == digests(finished)


def test_markdown_and_plot_show_each_variant(finished: Path) -> None:
    text = (finished / "ablation.md").read_text()
    own = {one.name: one for one in report_in(finished).variants}
    for name, variant in own.items():
        assert f"| {name} | {variant.hit_at_5[Similarity.AVG].value:.3f} (" in text
    drop = own["w/o bias"].drop
    assert drop is not None
    assert f"| w/o bias | `--conditioning centred` | {drop.difference.value:+.3f} (" in text
    assert "- **frozen**: it needs a pretrained backbone (--backbone)." in text
    assert (finished / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_sweep_averages_seeds(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "SWEEPS", {"beta": ("beta", (0.0, 1.0))})
    ablate(study(prepared, tmp_path / "out", study="beta", beta=1.0, seeds=2, seed=3))
    report = report_in(tmp_path / "out")
    assert [(one.name, one.value) for one in report.variants] == [("beta 0", 0.0), ("beta 1", 1.0)]
    for one in report.variants:
        assert [run.seed for run in one.trained] == [3, 4]
        mean = sum(run.hit_at_5 for run in one.trained) / 2
        assert one.hit_at_5[Similarity.AVG].value == pytest.approx(mean)
    none, only = (one.hit_at_5[Similarity.AVG].value for one in report.variants)
    drop = report.variants[0].drop
    assert drop is not None
    assert drop.difference.value == pytest.approx(only - none)
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert "# Sweep: beta" in text
    assert "| variant | seed 3 | seed 4 |" in text


def test_frozen_variant_of_a_pretrained_backbone_keeps_its_towers(
    prepared: Path, preprocessor: Preprocessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = tmp_path / "towers"
    small_backbone(TINY, preprocessor).model.save_pretrained(towers)
    preprocessor.save(towers)
    monkeypatch.setattr(studies, "ABLATIONS", {name: studies.ABLATIONS[name] for name in ("full", "frozen")})
    options = ["--backbone", str(towers), "--steps", "2", "--batch-size", "64", "--device", "cpu"]
    assert main(["ablate", "--prepared", str(prepared), "--out", str(tmp_path / "out"), *options]) == 0
    before = {
        name: one for name, one in load_file(towers / "model.safetensors").items() if "projection" not in name
    }
    for name, kept in (("full", False), ("frozen", True)):
        after = load_file(tmp_path / "out" / "runs" / f"{name}-seed0" / "model.safetensors")
        assert all(torch.equal(one, after[f"backbone.model.{key}"]) for key, one in before.items()) is kept
    saved = json.loads((tmp_path / "out" / "runs" / "frozen-seed0" / "config.json").read_text())
    assert (saved["steps"], saved["learning_rate"], saved["temperature"]) == (2, 1e-4, 0.2)  # steps was given


# Resuming.


def test_second_start_trains_only_what_the_first_did_not(
    prepared: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[TrainConfig],
) -> None:
    config = study(prepared, tmp_path / "out")

    def killed_before_third(training: TrainConfig) -> str:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(training)
        return train(training)

    with monkeypatch.context() as patch:
        patch.setattr(command, "train", killed_before_third)
        with pytest.raises(KeyboardInterrupt):
            ablate(config)
    assert not (config.out / "ablation.json").exists()
    first = [config.out / "runs" / name / "manifest.json" for name in FOLDERS[:2]]
    times = [path.stat().st_mtime_ns for path in first]
    started.clear()
    ablate(config)
    assert [one.out.name for one in started] == FOLDERS[2:]
    assert [path.stat().st_mtime_ns for path in first] == times
    figures = [{one.name: one.hit_at_5 for one in report_in(out).variants} for out in (config.out, finished)]
    assert figures[0] == figures[1]


def test_finished_study_trains_nothing_if_only_incidental_options_change(
    prepared: Path, finished: Path, started: list[TrainConfig]
) -> None:
    before = digests(finished)
    ablate(study(prepared, finished, workers=1))  # changes nothing that is learnt
    assert started == []
    assert digests(finished) == before


def test_training_interrupted_midway_is_continued(
    prepared: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[TrainConfig],
) -> None:
    config = study(prepared, tmp_path / "out", save_every=1)
    save = Run.save

    def killed_after_saving(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed_after_saving)
        with pytest.raises(KeyboardInterrupt):
            ablate(config)
    ablate(config)
    assert [(one.out.name, one.resume) for one in started] == [
        ("full-seed0", False),
        ("full-seed0", True),
        *((name, False) for name in FOLDERS[1:]),
    ]
    straight, continued = (
        load_file(out / "runs" / "full-seed0" / "model.safetensors") for out in (finished, config.out)
    )
    assert all(torch.equal(weights, continued[name]) for name, weights in straight.items())


def test_interrupted_training_with_other_options_is_discarded(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[TrainConfig]
) -> None:
    def killed(*given: Any) -> None:
        save(*given)
        raise KeyboardInterrupt

    save = Run.save
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            ablate(study(prepared, tmp_path / "out", save_every=1))
    started.clear()
    ablate(study(prepared, tmp_path / "out", steps=1))
    assert [(one.out.name, one.resume, one.steps) for one in started] == [
        (name, False, 1) for name in FOLDERS
    ]


def test_changed_options_train_every_variant_again(
    prepared: Path, tmp_path: Path, started: list[TrainConfig]
) -> None:
    out = tmp_path / "out"
    ablate(study(prepared, out, steps=1))
    before = digests(out)
    started.clear()
    ablate(study(prepared, out, steps=1, learning_rate=1e-2))
    assert [one.out.name for one in started] == FOLDERS
    after = digests(out)
    assert after.keys() == before.keys()
    assert all(after[name] != digest for name, digest in before.items())


# Errors.


def test_refuses_folder_of_another_study(finished: Path, prepared: Path) -> None:
    with pytest.raises(
        InputError, match=r"contains the study ablations\. Choose another --out for --study beta"
    ):
        ablate(study(prepared, finished, study="beta"))


def test_refuses_folder_that_it_did_not_write(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"was not written by `rcml ablate`\. Choose another --out"):
        ablate(study(prepared, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
