"""`rcml evaluate`: all networks are measured on the same test items and compared with chance."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.artifact import open_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.config import EvaluateConfig
from model.data.prepared_data import Prepared
from model.encoder.encoder import Encoder
from model.errors import ArtifactError, InputError, MismatchError
from model.evaluation.evaluate import evaluate, system_label
from model.evaluation.evaluation_set import make_evaluation_set
from model.evaluation.metrics import retrieval_hits
from model.evaluation.network_figures import Answers, figures_by_relation
from model.evaluation.network_results import shared_towers
from model.evaluation.sampling import LabelledPairs
from model.evaluation.significance import holm
from model.network.image_cache import PictureFiles
from model.records import Split
from model.similarity import Similarity
from model.systems.families import open_system
from model.training.train import train
from tests.model.evaluation.logged import with_log
from tests.model.network.families import write_family
from tests.model.planted import (
    edges_only_config,
    prepare_catalogue,
    prepared_of,
    tiny_training,
    write_pictured_items,
)
from tests.model.systems.test_sentence import write_sentence_model


def exam_config(checkpoints: Mapping[str, Any], prepared: Path, out: Path, **options: Any) -> EvaluateConfig:
    chosen = {
        "checkpoint": checkpoints.get("rcml"),
        "clip": checkpoints.get("clip", ()),
        "blind": checkpoints.get("blind", ()),
        "device": "cpu",
        "efficiency": False,
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
    assert set(report) == {
        "verdict", "out_of_domain", "data", "chance", "networks", "against_chance", "ratios", "relations", "tested",
        "checkpoints",
        "baselines", "retrieval", "catalogue", "relation_type", "validity", "sensitivity", "efficiency",
        "attention_entropy",
    }  # fmt: skip
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


def test_each_similarity_is_compared_with_chance(report: dict[str, Any]) -> None:
    found, hits = report["against_chance"], report["networks"]["rcml"]["hit_at_5"]
    assert list(found) == list(hits) == list(Similarity)
    for name, one in found.items():
        for end in ("value", "low", "high"):
            assert one["difference"][end] == pytest.approx(hits[name][end] - 5 / 21)
    adjusted = holm(np.array([one["p"] for one in found.values()]))
    assert [one["p_holm"] for one in found.values()] == adjusted.tolist()
    assert found["AVG"]["p_holm"] == pytest.approx(5 / 10_001)  # far above chance: the least p of five tests


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


def test_rivals_predict_relation_types_at_chance_level(report: dict[str, Any]) -> None:
    # A network without relations gives both relations the same probability, before and after calibration.
    losses = report["relation_type"]["log_loss"]
    for rival in ("clip", "blind", "frequency", "frequency x membership"):
        assert losses[rival] == pytest.approx(np.log(2), abs=0.02)
    assert losses["rcml"] < np.log(2) - 0.02


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
        checkpoint,
        {Similarity.AVG: np.ones(len(colour.item))},
        {},
        np.zeros(len(claims.valid), dtype=np.float32),
    )
    relations = figures_by_relation([answers], replace(exam, queries=colour, claims=claims))
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
    summary = evaluate(exam_config(checkpoints, prepared, tmp_path / "own", clip=(), blind=()))
    own = report_of(tmp_path / "own")
    assert own["networks"] == {"rcml": report["networks"]["rcml"]}
    assert own["ratios"] == {}
    assert own["verdict"]["effect"] is None
    assert "Without --blind" in own["verdict"]["sentence"]
    assert own["verdict"]["sentence"] in summary
    assert (tmp_path / "own" / "attention.png").is_file()
    assert "](attention.png)" in (tmp_path / "own" / "report.md").read_text()


def test_evaluates_a_baseline_by_itself(
    checkpoints: dict[str, Path], prepared: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    options = {"checkpoint": checkpoints["blind"], "clip": (), "blind": ()}
    evaluate(exam_config(checkpoints, prepared, tmp_path / "blind", **options))
    found = report_of(tmp_path / "blind")
    assert found["networks"] == {"blind": report["networks"]["blind"]}
    assert found["attention_entropy"] is None
    assert not (tmp_path / "blind" / "attention.png").exists()
    assert "no figure of the attention" in (tmp_path / "blind" / "report.md").read_text()


def test_attention_entropy_is_that_of_the_tested_network(
    report: dict[str, Any], checkpoints: dict[str, Path], prepared: Path
) -> None:
    data = Prepared.open(prepared)
    encoder = Encoder.from_pretrained(checkpoints["rcml"], "cpu")
    items = [data.items[row] for row in data.rows(Split.TEST)]
    expected = encoder.attention_entropy(
        encoder.preprocessor.tokenize([item.text for item in items]),
        PictureFiles(encoder.preprocessor, [data.path / item.picture for item in items]),
    )
    assert report["attention_entropy"] == pytest.approx(expected.model_dump())
    assert 0 < report["attention_entropy"]["text"] < 1


def test_uniform_attention_is_a_warning_of_the_verdict(prepared: Path, tmp_path: Path) -> None:
    train(tiny_training(prepared, tmp_path / "flat", attention_gain=0.001))
    evaluate(
        EvaluateConfig(checkpoint=tmp_path / "flat", prepared=prepared, out=tmp_path / "report", device="cpu")
    )
    warnings = report_of(tmp_path / "report")["verdict"]["warnings"]
    assert sum("is almost uniform" in warning for warning in warnings) == 2


def test_pretrained_system_answers_the_same_queries(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    spec = f"sentence:{tmp_path / 'sentence'}"
    write_sentence_model(tmp_path / "sentence", {"pooling_mode_mean_tokens": True})
    config = exam_config(checkpoints, prepared, tmp_path / "report", systems=(spec,))
    evaluate(config)
    report, system = report_of(config.out), open_system(spec, "cpu")
    data = Prepared.open(prepared)
    questions = make_evaluation_set(data, config)
    encoding = system.encode(questions.texts, questions.pictures, data.relations)
    expected = retrieval_hits(encoding, questions.queries, Similarity.AVG).mean()
    assert report["retrieval"]["random"]["hit_at_5"]["sentence:sentence"]["value"] == pytest.approx(expected)
    assert f"{system.parameters:,} parameters" in report["baselines"]["sentence:sentence"]
    assert "sentence:sentence" in (config.out / "report.md").read_text()


def test_measures_the_cost_of_each_network_and_system(
    checkpoints: dict[str, Path], prepared: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    spec = f"sentence:{tmp_path / 'sentence'}"
    write_sentence_model(tmp_path / "sentence", {"pooling_mode_mean_tokens": True})
    config = exam_config(checkpoints, prepared, tmp_path / "report", systems=(spec,), efficiency=True)
    evaluate(config)
    found = report_of(config.out)
    costs, system = found["efficiency"], open_system(spec, "cpu")
    assert list(costs["systems"]) == ["rcml", "blind", "clip", "sentence:sentence"]
    assert (costs["items"], costs["candidates"]) == (32, found["data"]["items"])
    assert "thread" in costs["machine"]
    for name in ("rcml", "blind", "clip"):
        assert costs["systems"][name]["parameters"] == found["networks"][name]["parameters"]
    # A vector has 32 components of 2 bytes; a network has one for the text and one for the picture.
    sizes = {name: one["bytes_per_item"] for name, one in costs["systems"].items()}
    assert sizes["rcml"] == {"1": 2 * 64, "10": 20 * 64, "100": 200 * 64}
    assert sizes["blind"] == sizes["clip"] == {"1": 2 * 64, "10": 2 * 64, "100": 2 * 64}
    vector = 2 * system.dim
    assert sizes["sentence:sentence"] == {"1": vector, "10": 10 * vector, "100": 100 * vector}
    for one in costs["systems"].values():
        assert min(one["ms_per_query"], *one["ms_per_item"].values()) > 0
    for key in ("networks", "checkpoints", "validity"):
        assert found[key] == report[key]
    assert "| rcml | " in (config.out / "report.md").read_text().partition("## Efficiency")[2]


def test_rejects_unknown_system_before_measuring_networks(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a network was measured")

    monkeypatch.setattr("model.evaluation.evaluate.measure_networks", refuse)
    with pytest.raises(InputError, match=r"'bert:x' names no system\. Write family:folder"):
        evaluate(exam_config(checkpoints, prepared, tmp_path / "report", systems=("bert:x",)))
    assert not (tmp_path / "report").exists()


def test_system_is_named_by_family_and_folder_unless_that_name_is_taken() -> None:
    assert system_label("sentence:/models/minilm/", ()) == "sentence:minilm"
    assert system_label("clip:openai/clip-vit-base-patch32", ()) == "clip:clip-vit-base-patch32"
    assert system_label("clip:b/large", ("clip:large",)) == "clip:b/large"


def test_report_lists_its_parents(checkpoints: dict[str, Path], prepared: Path, tmp_path: Path) -> None:
    evaluate(exam_config(checkpoints, prepared, tmp_path / "report", blind=()))
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


@pytest.fixture(scope="module")
def second(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train `rcml` and `blind` once more, with another seed."""
    folder = tmp_path_factory.mktemp("second")
    train(tiny_training(prepared, folder / "rcml", seed=1))
    train(tiny_training(prepared, folder / "blind", seed=1, objective="blind"))
    return {"rcml": folder / "rcml", "blind": folder / "blind"}


@pytest.fixture(scope="module")
def seeds(
    checkpoints: dict[str, Path],
    second: dict[str, Path],
    prepared: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Evaluate two seeds of `rcml` and `blind`."""
    out = tmp_path_factory.mktemp("seeds") / "report"
    both = {role: (checkpoints[role], second[role]) for role in ("rcml", "blind")}
    evaluate(exam_config(checkpoints, prepared, out, checkpoint=both["rcml"], clip=(), blind=both["blind"]))
    return out


def test_figures_of_several_checkpoints_are_means_over_them(
    seeds: Path, second: dict[str, Path], checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    options = {"checkpoint": second["rcml"], "blind": second["blind"], "clip": ()}
    evaluate(exam_config(checkpoints, prepared, tmp_path / "alone", **options))
    evaluate(exam_config(checkpoints, prepared, tmp_path / "first", clip=()))
    both, one, other = (report_of(path) for path in (seeds, tmp_path / "first", tmp_path / "alone"))

    def figure(report: Any, keys: tuple[str, ...]) -> float:
        return float(figure(report[keys[0]], keys[1:]) if keys else report)

    def mean(*keys: str) -> None:
        expected = (figure(one, keys) + figure(other, keys)) / 2
        assert figure(both, keys) == pytest.approx(expected)

    for role in ("rcml", "blind"):
        mean("networks", role, "hit_at_5", "AVG", "value")
        mean("networks", role, "relation_type_top_3", "TT")
        mean("networks", role, "relation_type_log_loss", "AVG", "after")
        mean("networks", role, "validity_ece", "after")
        mean("networks", role, "validity_auc")
        mean("retrieval", "hard", "hit_at_5", role, "value")
        mean("catalogue", "new", "systems", role, "ndcg_at_10", "value")
        mean("relation_type", "top_3", role, "value")
        mean("relation_type", "log_loss", role)
        mean("validity", "accuracy", role, "value")
        mean("sensitivity", "answers", role, "all")
    mean("attention_entropy", "image")
    mean("retrieval", "random", "comparisons", "blind", "difference", "value")
    hits = [one["relations"][0]["hit_at_5"], other["relations"][0]["hit_at_5"]]
    assert both["relations"][0]["hit_at_5"] == pytest.approx(np.mean(hits))
    assert sum(filled["claims"] for filled in both["networks"]["rcml"]["reliability"]["after"]) == (
        2 * both["data"]["claims"]
    )
    values = [found["checkpoints"]["rcml"][0]["hit_at_5"] for found in (one, other)]
    assert [found["hit_at_5"] for found in both["checkpoints"]["rcml"]] == values
    assert [found["seed"] for found in both["checkpoints"]["rcml"]] == [0, 1]
    # The baselines do not depend on the checkpoints.
    assert both["retrieval"]["hard"]["hit_at_5"]["text"] == one["retrieval"]["hard"]["hit_at_5"]["text"]


def test_further_checkpoints_are_numbered_parents(
    seeds: Path, checkpoints: dict[str, Path], second: dict[str, Path]
) -> None:
    parents = open_artifact(seeds, "report").parents
    assert list(parents) == ["prepared", "rcml", "rcml-2", "blind", "blind-2"]
    for name, path in (
        ("rcml", checkpoints["rcml"]),
        ("rcml-2", second["rcml"]),
        ("blind-2", second["blind"]),
    ):
        assert parents[name] == open_artifact(path, "checkpoint").digest


def test_another_checkpoint_of_the_same_kind_is_a_rival(
    checkpoints: dict[str, Path],
    second: dict[str, Path],
    prepared: Path,
    report: dict[str, Any],
    tmp_path: Path,
) -> None:
    options = {"clip": (), "blind": (), "against": second["rcml"]}
    evaluate(exam_config(checkpoints, prepared, tmp_path / "report", **options))
    found = report_of(tmp_path / "report")
    assert list(found["networks"]) == ["rcml", "against"]
    assert found["networks"]["rcml"] == report["networks"]["rcml"]
    own, rival = (found["networks"][role]["hit_at_5"]["AVG"]["value"] for role in ("rcml", "against"))
    difference = found["retrieval"]["random"]["comparisons"]["against"]["difference"]["value"]
    assert own != rival
    assert difference == pytest.approx(own - rival)
    assert found["ratios"] == {"against": own / rival}


def test_systems_of_each_table(report: dict[str, Any]) -> None:
    networks = ["rcml", "blind", "clip"]
    baselines = ["random", "popularity", "membership", "text", "co-occurrence", "factors"]
    types = ["frequency", "frequency x membership"]
    for table in report["retrieval"].values():
        assert list(table["hit_at_5"]) == networks + baselines
        assert list(table["comparisons"]) == (networks + baselines)[1:]
    assert list(report["catalogue"]["new"]["systems"]) == networks + baselines
    assert list(report["relation_type"]["top_3"]) == networks + types
    assert list(report["validity"]["comparisons"]) == networks[1:]
    assert list(report["sensitivity"]["answers"]) == networks + baselines
    assert list(report["baselines"]) == baselines + types


def test_tables_repeat_the_figures_of_the_networks(report: dict[str, Any]) -> None:
    for name, network in report["networks"].items():
        assert report["retrieval"]["random"]["hit_at_5"][name] == network["hit_at_5"]["AVG"]
        assert report["validity"]["accuracy"][name]["value"] == network["validity_accuracy"]
        top_3 = network["relation_type_top_3_calibrated"]["AVG"]
        assert report["relation_type"]["top_3"][name]["value"] == top_3


def test_random_order_is_at_chance_level(report: dict[str, Any]) -> None:
    assert report["retrieval"]["random"]["hit_at_5"]["random"]["value"] == pytest.approx(5 / 21)
    recall = report["catalogue"]["new"]["systems"]["random"]["recall_at_10"]["value"]
    assert recall == pytest.approx(10 / (report["data"]["items"] - 1))


def test_networks_without_relations_give_the_same_answers_under_all_relations(report: dict[str, Any]) -> None:
    answers = report["sensitivity"]["answers"]
    for name in ("blind", "clip", "random", "text"):
        assert answers[name] == {"related": 1.0, "all": 1.0}
    assert answers["rcml"]["all"] < 1.0
    # An item shares at most one partner, its copy, between colour and shape.
    assert report["sensitivity"]["partners"] < 0.2


def test_parts_of_the_catalogue_add_up(report: dict[str, Any]) -> None:
    table = report["catalogue"]["new"]
    assert sum(one["queries"] for one in table["relations"]) == table["queries"]
    assert sum(one["pairs"] for one in table["popularity"]) == table["pairs"] == 2 * report["data"]["edges"]
    for name, measures in table["systems"].items():
        for measure in ("recall_at_10", "ndcg_at_10"):
            total = sum(one["queries"] * one[measure][name] for one in table["relations"])
            assert total / table["queries"] == pytest.approx(measures[measure]["value"])


def test_collaborative_baselines_know_nothing_of_new_items(
    prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("logged")
    data = with_log(prepared, folder / "prepared").path
    train(tiny_training(data, folder / "rcml"))
    evaluate(exam_config({"rcml": folder / "rcml"}, data, folder / "report"))
    found = report_of(folder / "report")
    assert set(found["retrieval"]) == {"random", "hard", "training"}
    assert set(found["catalogue"]) == {"new", "training"}
    for table in found["retrieval"].values():
        for name in ("co-occurrence", "factors"):
            assert table["hit_at_5"][name] == table["hit_at_5"]["random"]
    assert "training log" in found["baselines"]["factors"]
    # The words tell which items share a colour or a shape, also with an item from training.
    hits = found["retrieval"]["training"]["hit_at_5"]
    assert hits["text"]["value"] > 2 * hits["random"]["value"]


def test_rejects_checkpoints_of_different_objectives(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    both = (checkpoints["rcml"], checkpoints["blind"])
    with pytest.raises(MismatchError, match=r"blind was trained with --objective blind, but .* --against"):
        evaluate(exam_config(checkpoints, prepared, tmp_path / "report", checkpoint=both))


def test_rejects_rival_in_the_role_of_the_tested_checkpoint(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    config = exam_config(checkpoints, prepared, tmp_path / "report", checkpoint=checkpoints["blind"])
    with pytest.raises(InputError, match=r"was itself trained with --objective blind.*--against"):
        evaluate(config)


def test_rivals_have_the_role_of_their_objective_and_are_averaged(
    checkpoints: dict[str, Path], second: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    train(tiny_training(prepared, tmp_path / "siglip", objective="siglip"))
    rivals = (checkpoints["blind"], tmp_path / "siglip", second["blind"])
    evaluate(exam_config(checkpoints, prepared, tmp_path / "report", clip=(), blind=(), rivals=rivals))
    found = report_of(tmp_path / "report")
    assert {role: len(own) for role, own in found["checkpoints"].items()} == {
        "rcml": 1,
        "blind": 2,
        "siglip": 1,
    }
    values = [one["hit_at_5"] for one in found["checkpoints"]["blind"]]
    assert found["networks"]["blind"]["hit_at_5"]["AVG"]["value"] == pytest.approx(np.mean(values))
    assert set(found["retrieval"]["random"]["comparisons"]) >= {"blind", "siglip"}
    assert found["verdict"]["effect"] is not None  # because `blind` is among the rivals
    assert (
        "| similarity | rcml | blind | siglip | chance |" in (tmp_path / "report" / "report.md").read_text()
    )
    parents = open_artifact(tmp_path / "report", "report").parents
    assert parents["blind-2"] == open_artifact(second["blind"], "checkpoint").digest
    assert parents["siglip"] == open_artifact(tmp_path / "siglip", "checkpoint").digest


def test_rcml_may_be_the_rival(checkpoints: dict[str, Path], prepared: Path, tmp_path: Path) -> None:
    options = {"checkpoint": checkpoints["clip"], "clip": (), "rivals": checkpoints["rcml"]}
    evaluate(exam_config(checkpoints, prepared, tmp_path / "report", **options))
    assert report_of(tmp_path / "report")["tested"] == "clip"
    parents = open_artifact(tmp_path / "report", "report").parents
    for name, objective in (("rcml", "clip"), ("rcml-rival", "rcml")):
        assert parents[name] == open_artifact(checkpoints[objective], "checkpoint").digest


def test_rejects_rival_with_the_tested_objective(
    checkpoints: dict[str, Path], second: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    config = exam_config(checkpoints, prepared, tmp_path / "report", rivals=second["rcml"])
    with pytest.raises(
        InputError, match=r"--rivals .*was trained with --objective rcml.*Pass it with --checkpoint"
    ):
        evaluate(config)


def test_rejects_a_checkpoint_that_is_given_twice(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path
) -> None:
    config = exam_config(checkpoints, prepared, tmp_path / "report", rivals=checkpoints["blind"])
    with pytest.raises(
        InputError, match=r"are the same checkpoint, and would count as two trainings of blind"
    ):
        evaluate(config)


def test_rejects_foreign_out_before_measuring(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    monkeypatch.setattr("model.evaluation.evaluate.measure_networks", None)
    with pytest.raises(ArtifactError, match=r"notes exists and is not an rcml artifact"):
        evaluate(exam_config(checkpoints, prepared, tmp_path / "notes"))
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"


def test_evaluates_a_catalogue_with_one_relation(tmp_path: Path) -> None:
    names = [f"{group}{item}" for group in "abcdefghij" for item in range(10)]
    items = write_pictured_items(tmp_path, {name: ["Things"] for name in names})
    pairs = [(a, b) for a, b in combinations(names, 2) if a[0] == b[0]]
    options = edges_only_config(tmp_path / "edges", pairs)
    data = prepared_of(options.model_copy(update={"items": (items,)}))
    train(tiny_training(data.path, tmp_path / "rcml"))
    evaluate(
        EvaluateConfig(
            checkpoint=tmp_path / "rcml",
            prepared=data.path,
            out=tmp_path / "report",
            candidates=6,
            efficiency=False,
            device="cpu",
        )
    )
    found = report_of(tmp_path / "report")
    assert found["sensitivity"] is None
    assert found["relation_type"]["top_3"]["frequency"]["value"] == 1.0
    assert not any("relation of a pair" in warning for warning in found["verdict"]["warnings"])
    for name in ("report.md", "report.html"):
        assert "There is only one relation." in (tmp_path / "report" / name).read_text()


def test_checkpoints_with_the_same_towers_have_the_figures_they_have_alone(
    checkpoints: dict[str, Path], prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_family("clip", tmp_path / "clip")
    options: dict[str, Any] = {"backbone": str(tmp_path / "clip"), "tune": "frozen", "validate_every": 2}
    trained = [tmp_path / f"seed{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(trained):
        train(tiny_training(prepared, folder, seed=seed, **options))
    chosen = {"rcml": tuple(trained), "clip": checkpoints["clip"]}
    opened = [Checkpoint.open(folder) for folder in (*trained, checkpoints["clip"])]
    assert list(shared_towers(opened)) == trained
    assert shared_towers([opened[0], opened[2]]) == shared_towers(opened[:1]) == {}
    evaluate(exam_config(chosen, prepared, tmp_path / "shared"))
    monkeypatch.setattr("model.evaluation.network_results.shared_towers", lambda checkpoints: {})
    evaluate(exam_config(chosen, prepared, tmp_path / "alone"))
    assert report_of(tmp_path / "shared") == report_of(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.glob(".*")) == []
