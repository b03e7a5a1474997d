"""`rcml evaluate`: all networks are measured on the same test items and compared with chance."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.artifact import open_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.config import EvaluateConfig
from model.data.prepared_data import Prepared
from model.errors import InputError, MismatchError
from model.evaluation.evaluate import Answers, evaluate, figures_by_relation, make_evaluation_set
from model.evaluation.sampling import LabelledPairs
from model.records import Split
from model.similarity import Similarity
from tests.model.planted import edges_only_config, prepare_catalogue, prepared_of


def exam_config(checkpoints: dict[str, Path], prepared: Path, out: Path, **options: Any) -> EvaluateConfig:
    chosen = {
        "checkpoint": checkpoints["rcml"],
        "clip": checkpoints["clip"],
        "blind": checkpoints["blind"],
        "device": "cpu",
        **options,
    }
    return EvaluateConfig(prepared=prepared, out=out, **chosen)


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


@pytest.fixture(scope="module")
def report(
    checkpoints: dict[str, Path], prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("evaluation") / "report"
    evaluate(exam_config(checkpoints, prepared, out))
    return report_of(out)


def test_report_has_documented_keys(report: dict[str, Any]) -> None:
    assert set(report) == {"data", "chance", "networks", "ratios", "relations"}
    assert set(report["networks"]) == {"rcml", "clip", "blind"}
    for network in report["networks"].values():
        assert set(network) == {
            "hit_at_5", "relation_type_top_3", "relation_type_top_3_calibrated", "relation_type_log_loss",
            "validity_accuracy", "validity_auc", "validity_log_loss", "validity_ece", "reliability", "calibration",
            "parameters", "steps", "seconds",
        }  # fmt: skip
        assert set(network["hit_at_5"]) == set(network["relation_type_top_3"]) == set(Similarity)


def test_metrics_are_between_0_and_1_and_intervals_contain_hit_at_5(report: dict[str, Any]) -> None:
    for network in report["networks"].values():
        for hit in network["hit_at_5"].values():
            assert 0 <= hit["low"] <= hit["value"] <= hit["high"] <= 1
        assert all(0 <= share <= 1 for share in network["relation_type_top_3"].values())
        assert 0 <= network["validity_accuracy"] <= 1


def test_chance_levels_match_the_evaluation_set(report: dict[str, Any]) -> None:
    assert report["chance"]["hit_at_5"] == pytest.approx(5 / 21)
    assert report["chance"]["relation_type_top_3"] == 1.0  # only two relations to choose from
    assert report["chance"]["validity_accuracy"] == 0.5


def test_data_counts_match_the_test_split(report: dict[str, Any], prepared: Path) -> None:
    data = Prepared.open(prepared)
    edges = sum(edge.split == Split.TEST for edge in data.edges)
    assert report["data"] == {
        "items": len(data.rows(Split.TEST)),
        "edges": edges,
        "queries": 2 * edges,
        "claims": 2 * edges,
        "relations": 2,
        "candidates": 21,
    }


def test_ratios_compare_with_each_baseline(report: dict[str, Any]) -> None:
    own, *rivals = (
        report["networks"][name]["hit_at_5"]["AVG"]["value"] for name in ("rcml", "clip", "blind")
    )
    assert report["ratios"] == {"clip": own / rivals[0], "blind": own / rivals[1]}


def test_baselines_predict_relation_types_at_chance_level(
    checkpoints: dict[str, Path], prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "model.evaluation.evaluate.TOP_RELATIONS", 1
    )  # of two relations, so the chance level is one half
    evaluate(exam_config(checkpoints, prepared, tmp_path / "report"))
    networks = report_of(tmp_path / "report")["networks"]
    for rival in ("clip", "blind"):
        assert list(networks[rival]["relation_type_top_3"].values()) == pytest.approx([0.5] * 5, abs=1e-12)
    assert networks["rcml"]["relation_type_top_3"]["AVG"] != pytest.approx(0.5, abs=1e-6)


def test_calibration_lowers_relation_type_loss_and_report_names_calibration_version(
    report: dict[str, Any], checkpoints: dict[str, Path]
) -> None:
    own = report["networks"]["rcml"]
    loss = own["relation_type_log_loss"]["AVG"]
    assert (
        loss["after"]
        < loss["before"]
        < report["chance"]["relation_type_log_loss"]
        == pytest.approx(np.log(2))
    )
    assert own["calibration"] == Checkpoint.open(checkpoints["rcml"]).calibration.version != "none"


def test_calibration_error_matches_the_reported_bins(report: dict[str, Any]) -> None:
    for network in report["networks"].values():
        for stage in ("before", "after"):
            bins = network["reliability"][stage]
            assert sum(one["claims"] for one in bins) == report["data"]["claims"]
            off = sum(one["claims"] * abs(one["probability"] - one["share"]) for one in bins)
            assert network["validity_ece"][stage] == pytest.approx(off / report["data"]["claims"])


def test_figures_by_relation_add_up_to_the_totals(report: dict[str, Any]) -> None:
    own, relations = report["networks"]["rcml"], report["relations"]
    assert [one["relation_id"] for one in relations] == ["colour", "shape"]
    for total in ("queries", "claims"):
        assert sum(one[total] for one in relations) == report["data"][total]
    hits = sum(one["queries"] * one["hit_at_5"] for one in relations)
    assert hits / report["data"]["queries"] == pytest.approx(own["hit_at_5"]["AVG"]["value"])
    # By the triangle inequality, the error of a bin over all relations is at most the sum of the errors by relation.
    off = sum(one["claims"] * one["validity_ece"] for one in relations)
    assert own["validity_ece"]["after"] <= off / report["data"]["claims"] + 1e-9
    assert all(0 <= one["validity_auc"] <= 1 for one in relations)


def test_relation_without_queries_and_claims_has_no_figures(
    checkpoints: dict[str, Path], prepared: Path
) -> None:
    data, checkpoint = Prepared.open(prepared), Checkpoint.open(checkpoints["rcml"])
    exam = make_evaluation_set(data, exam_config(checkpoints, prepared, Path("unused")))
    colour = replace(exam.queries, relation=np.ones_like(exam.queries.relation))
    claims = LabelledPairs(
        replace(exam.claims.pairs, relation=np.ones_like(exam.claims.pairs.relation)), exam.claims.valid
    )
    answers = Answers(
        {Similarity.AVG: np.ones(len(colour.item))}, {}, np.zeros(len(claims.valid), dtype=np.float32)
    )
    relations = figures_by_relation(checkpoint, replace(exam, queries=colour, claims=claims), answers)
    assert [one.hit_at_5 for one in relations] == [1.0, None]
    assert [one.validity_auc for one in relations] == [0.5, None]
    assert [one.validity_ece is None for one in relations] == [False, True]


def test_report_is_reproducible_with_the_same_seed(
    checkpoints: dict[str, Path], prepared: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    evaluate(exam_config(checkpoints, prepared, tmp_path / "again"))
    evaluate(exam_config(checkpoints, prepared, tmp_path / "other", seed=1))
    assert report_of(tmp_path / "again") == report != report_of(tmp_path / "other")


def test_evaluation_set_contains_only_test_items(checkpoints: dict[str, Path], prepared: Path) -> None:
    data = Prepared.open(prepared)
    exam = make_evaluation_set(data, exam_config(checkpoints, prepared, Path("unused")))
    unseen = {data.items[row].text for row in data.rows(Split.TEST)}
    assert set(exam.texts) == unseen
    assert exam.queries.candidates.max() < len(exam.texts)
    np.testing.assert_array_equal(exam.known, [1, 2])


def test_evaluates_a_checkpoint_without_baselines(
    checkpoints: dict[str, Path], prepared: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    summary = evaluate(exam_config(checkpoints, prepared, tmp_path / "own", clip=None, blind=None))
    own = report_of(tmp_path / "own")
    assert own["networks"] == {"rcml": report["networks"]["rcml"]}
    assert own["ratios"] == {}
    assert f"AVG Hit@5 {own['networks']['rcml']['hit_at_5']['AVG']['value']:.3f} (chance 0.238)" in summary


def test_evaluates_a_baseline_by_itself(
    checkpoints: dict[str, Path], prepared: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    options = {"checkpoint": checkpoints["blind"], "clip": None, "blind": None}
    evaluate(exam_config(checkpoints, prepared, tmp_path / "blind", **options))
    assert report_of(tmp_path / "blind")["networks"] == {"blind": report["networks"]["blind"]}


def test_report_lists_its_parents(checkpoints: dict[str, Path], prepared: Path, tmp_path: Path) -> None:
    evaluate(exam_config(checkpoints, prepared, tmp_path / "report", blind=None))
    assert open_artifact(tmp_path / "report", "report").parents == {
        "prepared": open_artifact(prepared, "prepared").digest,
        "rcml": open_artifact(checkpoints["rcml"], "checkpoint").digest,
        "clip": open_artifact(checkpoints["clip"], "checkpoint").digest,
    }


def test_rejects_checkpoint_trained_on_other_data(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    other = prepare_catalogue(tmp_path / "other", seed=1)
    with pytest.raises(
        MismatchError, match=r"rcml was not trained on .* may have been trained on the test items"
    ):
        evaluate(exam_config(checkpoints, other, tmp_path / "report"))
    assert not (tmp_path / "report").exists()


def test_rejects_baseline_with_another_objective(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    config = exam_config(checkpoints, prepared, tmp_path / "report", clip=checkpoints["blind"])
    with pytest.raises(MismatchError, match=r"--clip .*blind was trained with --objective blind"):
        evaluate(config)


def test_rejects_more_candidates_than_test_items(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"Only \d+ items can serve as negatives, but 99 are needed"):
        evaluate(exam_config(checkpoints, prepared, tmp_path / "report", candidates=100))


def test_rejects_data_without_test_pairs(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    data = prepared_of(edges_only_config(tmp_path / "data", test_share=0.0))
    with pytest.raises(InputError, match=r"has no test pairs.*--test-share"):
        evaluate(exam_config(checkpoints, data.path, tmp_path / "report"))
