"""One checkpoint of two domains, and its evaluation in each of them and out of domain."""

import json
from pathlib import Path

import numpy as np
import pytest

from model.checkpoint.checkpoint import Checkpoint
from model.config import EvaluateConfig
from model.data.joined_data import open_prepared
from model.data.prepared_data import Prepared
from model.errors import MismatchError
from model.evaluation.evaluate import evaluate
from model.training.train import train
from tests.model.planted import prepared_of, tiny_training, two_camps


@pytest.fixture(scope="module")
def camps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = two_camps(tmp_path_factory.mktemp("camps"))
    return prepared_of(config.model_copy(update={"validation_share": 0.2, "seed": 0, "domain": "camps"})).path


@pytest.fixture(scope="module")
def joint(prepared: Path, camps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joint") / "checkpoint"
    train(tiny_training(prepared, out).model_copy(update={"prepared": (prepared, camps)}))
    return out


def report_of(checkpoint: Path, data: Path, out: Path) -> dict:  # type: ignore[type-arg]
    evaluate(
        EvaluateConfig(
            checkpoint=(checkpoint,), prepared=data, out=out, candidates=2, efficiency=False, device="cpu"
        )
    )
    found: dict = json.loads((out / "report.json").read_text())  # type: ignore[type-arg]
    return found


def test_the_checkpoint_has_the_relations_of_all_domains(joint: Path, prepared: Path, camps: Path) -> None:
    checkpoint = Checkpoint.open(joint)
    assert checkpoint.relations == open_prepared([prepared, camps]).relations
    assert [one.description for one in checkpoint.relations] == [
        *(one.description for one in Prepared.open(prepared).relations),
        *(one.description for one in Prepared.open(camps).relations[1:]),
    ]
    assert checkpoint.manifest.parents == {
        "prepared": Prepared.open(prepared).manifest.digest,
        "prepared-2": Prepared.open(camps).manifest.digest,
    }


def test_each_domain_is_in_domain_for_the_joint_checkpoint(
    joint: Path, prepared: Path, camps: Path, tmp_path: Path
) -> None:
    for number, data in enumerate((prepared, camps)):
        report = report_of(joint, data, tmp_path / str(number))
        assert report["out_of_domain"] is False
        known = [one.relation_id for one in Prepared.open(data).relations if not one.intra]
        assert [row["relation_id"] for row in report["relations"]] == known


def test_another_domain_is_reported_as_out_of_domain(
    checkpoints: dict[str, Path], camps: Path, tmp_path: Path
) -> None:
    report = report_of(checkpoints["rcml"], camps, tmp_path / "report")
    assert report["out_of_domain"] is True
    assert report["verdict"]["warnings"][0].startswith("Out of domain: ")
    assert "It has seen none of the items." in report["verdict"]["warnings"][0]
    assert "Out of domain" in (tmp_path / "report" / "report.md").read_text()
    assert set(report["retrieval"]["random"]["hit_at_5"]) > {"rcml", "text"}


def test_data_with_a_trained_relation_is_not_another_domain(
    checkpoints: dict[str, Path], camps: Path, joint: Path, prepared: Path, tmp_path: Path
) -> None:
    other = prepared_of(two_camps(tmp_path).model_copy(update={"test_share": 0.4, "seed": 3}))
    with pytest.raises(MismatchError, match=r"was not trained on .*or to a folder of another domain"):
        report_of(joint, other.path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_unknown_relations_have_no_bias_and_known_ones_keep_theirs(joint: Path, camps: Path) -> None:
    from model.encoder.encoder import Encoder
    from model.encoder.out_of_domain import under_relations_of

    checkpoint, data = Checkpoint.open(joint), Prepared.open(camps)
    encoder = Encoder.from_pretrained(joint, "cpu")
    moved, same = under_relations_of(data, checkpoint, encoder)
    assert moved.relations == data.relations == same.relations
    np.testing.assert_allclose(moved.relation_vectors[1:], checkpoint.relation_vectors[3:], rtol=0, atol=1e-5)
    for similarity, scaling in checkpoint.calibration.relation_types.items():
        assert moved.calibration.relation_types[similarity].biases == scaling.biases[2:]
        assert moved.calibration.relation_types[similarity].scale == scaling.scale
    assert moved.calibration.validity == checkpoint.calibration.validity
