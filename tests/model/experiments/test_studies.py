"""Variants of a study: each changes one option of the reference, and variants without a meaning are left out."""

from pathlib import Path
from typing import Any

import pytest

from model.config import AblateConfig, Study
from model.experiments.studies import variants_of


def study(study: Study = "ablations", **options: Any) -> AblateConfig:
    chosen: dict[str, Any] = {"conditioning": "centred+bias", **options}
    return AblateConfig(prepared=Path("prepared"), out=Path("out"), study=study, **chosen)


def changed(config: AblateConfig) -> dict[str, dict[str, Any]]:
    """Return for each variant the options of its training that differ from those of the reference."""
    variants = variants_of(config)
    trainings = {one.name: one.training(config, 7).model_dump(exclude={"out"}) for one in variants.tried}
    reference = trainings[variants.reference]
    return {
        name: {option: value for option, value in own.items() if value != reference[option]}
        for name, own in trainings.items()
    }


def test_each_ablation_changes_one_option() -> None:
    assert changed(study()) == {
        "full": {},
        "w/o inter edges": {"inter_edges": False},
        "w/o intra loss": {"intra_modal_weight": 0.0},
        "w/o descriptions": {"objective": "blind"},
        "w/o centring": {"conditioning": "paper"},
        "w/o bias": {"conditioning": "centred"},
    }


def test_small_network_has_no_frozen_variant() -> None:
    assert variants_of(study()).left_out == {"frozen": "it needs a pretrained backbone (--backbone)"}


def test_frozen_variant_has_frozen_defaults_except_for_given_options() -> None:
    frozen = changed(study(backbone="towers", steps=50))["frozen"]
    assert frozen == {"tune": "frozen", "temperature": 0.2, "learning_rate": 1e-4, "validate_every": 10}
    frozen = changed(study(backbone="towers", tune="lora", temperature=0.3, learning_rate=1e-4))["frozen"]
    assert frozen == {"tune": "frozen", "steps": 200, "validate_every": 10}


def test_variants_that_remove_nothing_are_left_out() -> None:
    paper = variants_of(study(conditioning="paper", intra_modal_weight=0.0))
    assert [one.name for one in paper.tried] == ["full", "w/o inter edges", "w/o descriptions"]
    assert set(paper.left_out) == {"w/o intra loss", "frozen", "w/o centring", "w/o bias"}
    centred = variants_of(study(conditioning="centred"))
    assert set(centred.left_out) == {"frozen", "w/o bias"}
    frozen = variants_of(study(backbone="towers", tune="frozen"))
    assert frozen.left_out == {"frozen": "it equals the reference, which already has --tune frozen"}


@pytest.mark.parametrize(
    ("name", "option", "values"),
    [
        ("beta", "beta", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ("temperature", "temperature", [0.02, 0.05, 0.1, 0.2, 0.5]),
        ("lambda", "intra_modal_weight", [0.0, 0.25, 0.5, 1.0, 2.0]),
        ("batch-size", "batch_size", [32, 64, 128, 256, 512]),
    ],
)
def test_sweep_tries_each_value(name: Study, option: str, values: list[float]) -> None:
    config = study(name)
    variants = variants_of(config)
    assert [getattr(one.training(config, 0), option) for one in variants.tried] == values
    assert [one.value for one in variants.tried] == values


def test_study_of_objectives_changes_only_objective() -> None:
    variants = variants_of(study("objectives"))
    assert (variants.reference, variants.left_out) == ("rcml", {})
    assert [one.options for one in variants.tried] == [
        f"--objective {name}" for name in ("rcml", "blind", "clip", "siglip", "unicl", "declip")
    ]
    assert changed(study("objectives")) == {
        "rcml": {},
        **{name: {"objective": name} for name in ("blind", "clip", "siglip", "unicl", "declip")},
    }


def test_study_of_objectives_leaves_out_declip_without_augmented_pictures() -> None:
    variants = variants_of(study("objectives", augment=False))
    assert variants.left_out == {"declip": "it needs augmented pictures (without --no-augment)"}
    assert [one.name for one in variants.tried] == ["rcml", "blind", "clip", "siglip", "unicl"]
    frozen = variants_of(study("objectives", augment=False, backbone="towers", tune="frozen"))
    assert [one.name for one in frozen.tried][-1] == "declip"


def test_sweep_adds_value_of_reference() -> None:
    variants = variants_of(study("beta", beta=0.55))
    assert [one.value for one in variants.tried] == [0.0, 0.2, 0.4, 0.55, 0.6, 0.8, 1.0]
    assert variants.reference == "beta 0.55"


def test_folders_of_trainings_differ_and_are_names() -> None:
    config = study()
    folders = [one.folder(config.out, seed) for one in variants_of(config).tried for seed in (0, 1)]
    assert len(set(folders)) == len(folders)
    assert Path("out/runs/without-intra-loss-seed1") in folders
    assert {folder.parent for folder in folders} == {Path("out/runs")}


def test_options_of_variant_are_typed_as_on_the_command_line() -> None:
    typed = {one.name: one.options for one in variants_of(study()).tried}
    assert typed["full"] == ""
    assert typed["w/o inter edges"] == "--no-inter-edges"
    assert typed["w/o bias"] == "--conditioning centred"
    assert variants_of(study("batch-size")).tried[0].options == "--batch-size 32"
