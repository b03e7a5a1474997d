"""`report.md` shows the figures of `report.json`."""

import json
from itertools import pairwise
from pathlib import Path

from model.evaluation.figures import EvaluationReport
from model.evaluation.report.markdown import evaluation_markdown

from .contents import content, report


def rows_of(markdown: str, start: str) -> list[str]:
    return [line for line in markdown.splitlines() if line.startswith(start)]


def test_saved_report_has_the_expected_keys_and_values(tmp_path: Path) -> None:
    networks = {"rcml": 1 / 3, "clip": 0.1 + 0.2, "blind": 1e-7}
    report(**networks).save(tmp_path)
    written = (tmp_path / "report.json").read_bytes()
    assert written == (json.dumps(content(**networks), indent=2) + "\n").encode()


def test_ignores_additional_keys_of_another_version(tmp_path: Path) -> None:
    raw = content(rcml=0.6)
    more = {**raw, "weather": "fine", "networks": {"rcml": {**raw["networks"]["rcml"], "mood": 1}}}
    assert EvaluationReport.model_validate(more) == report(rcml=0.6)


def test_each_similarity_has_a_row_with_its_interval_the_baselines_and_chance() -> None:
    readable = evaluation_markdown(report(rcml=0.6, clip=0.3))
    assert rows_of(readable, "| TT |") == [
        "| TT | 0.600 (0.550 to 0.650), p = 0.001 | 0.300 (0.250 to 0.350) | 0.238 |",
        "| TT | 0.300 | 0.150 | 0.300 |",
    ]
    assert rows_of(readable, "| AVG |")[0].startswith("| AVG | 0.600 (0.550 to 0.650), p = 0.005 | 0.300 (")
    assert "p: rcml against chance" in readable
    assert "adjusted for the 5 similarities." in readable
    assert (
        "| measure | rcml | clip | chance |\n|---|---:|---:|---:|\n| accuracy | 0.650 | 0.575 | 0.500 |"
        in readable
    )


def test_networks_have_a_fixed_order() -> None:
    readable = evaluation_markdown(report(declip=0.2, clip=0.3, unicl=0.3, rcml=0.6, siglip=0.4, blind=0.5))
    order = "| similarity | rcml | blind | clip | siglip | unicl | declip | chance |"
    assert rows_of(readable, "| similarity |") == [order] * 2


def test_states_test_data_baseline_ratios_and_network_sizes() -> None:
    readable = evaluation_markdown(report(rcml=0.6, clip=0.3))
    assert "192 items that training never saw, 700 related pairs and 10 relations." in readable
    assert "AVG Hit@5 of `rcml` is 2.00 times that of `clip`." in readable
    assert "1,234,567 parameters, 40 steps, trained in 12 s" in readable


def test_shows_figures_before_and_after_calibration_and_chance() -> None:
    readable = evaluation_markdown(report(rcml=0.6, clip=0.3))
    assert rows_of(readable, "| validity ECE") == [
        "| validity ECE | 0.200, calibrated 0.050 | 0.200, calibrated 0.050 |  |"
    ]
    assert rows_of(readable, "| validity log-loss") == [
        "| validity log-loss | 0.400, calibrated 0.250 | 0.400, calibrated 0.250 | 0.693 |"
    ]
    assert rows_of(readable, "| relation-type") == [
        "| relation-type log-loss, AVG | 2.000, calibrated 1.400 | 2.000, calibrated 1.700 | 2.303 |",
        "| relation-type Top-3, AVG | 0.300, calibrated 0.400 | 0.150, calibrated 0.250 | 0.300 |",
    ]


def test_each_relation_has_a_row_and_missing_figures_are_empty() -> None:
    readable = evaluation_markdown(report(rcml=0.6))
    assert rows_of(readable.partition("## By relation")[2], "| `") == [
        "| `office` | 40 | 0.900 | 41 | 0.800 | 0.100 |",
        "| `garden` | 0 |  | 0 |  |  |",
    ]


def test_states_entropy_of_attention_if_it_depends_on_the_relation() -> None:
    said = "divided by log(number of tokens), is 0.750 over words and 0.500 over patches."
    raw = content(rcml=0.6)
    assert said in evaluation_markdown(report(rcml=0.6))
    assert said in evaluation_markdown(EvaluationReport.model_validate({**raw, "sensitivity": None}))
    without = EvaluationReport.model_validate({**raw, "attention_entropy": None})
    assert "entropy" not in evaluation_markdown(without)


def test_says_why_a_network_without_relations_has_no_attention_figure() -> None:
    said = "There is no figure of the attention, because that of `blind` is the same under every relation."
    blind = EvaluationReport.model_validate({**content(rcml=0.6, blind=0.5), "tested": "blind"})
    assert said in evaluation_markdown(blind, ["cases.png"])
    assert "no figure" not in evaluation_markdown(report(rcml=0.6), ["cases.png", "attention.png"])


def test_bar_in_a_name_does_not_end_its_cell() -> None:
    raw = content(rcml=0.6)
    raw["relations"][0]["relation_id"] = raw["catalogue"]["new"]["relations"][0]["relation_id"] = (
        "home|office"
    )
    raw["checkpoints"]["rcml"][0]["path"] = "var/a|b"
    readable = evaluation_markdown(EvaluationReport.model_validate(raw))
    assert rows_of(readable, "| `home") == [
        "| `home\\|office` | 40 | 0.600 | 0.400 |",
        "| `home\\|office` | 40 | 0.900 | 41 | 0.800 | 0.100 |",
    ]
    assert "| rcml `var/a\\|b` | 7 |" in readable


def test_table_headers_and_separators_have_equal_numbers_of_cells() -> None:
    lines = evaluation_markdown(report(rcml=0.6, clip=0.3, blind=0.5)).splitlines()
    for head, rule in pairwise(lines):
        if rule.startswith("|--"):
            assert head.count("|") == rule.count("|")


def test_verdict_and_warnings_come_first() -> None:
    lines = evaluation_markdown(report(rcml=0.6)).splitlines()
    assert lines[:5] == [
        "# Evaluation",
        "",
        "**Conditioning adds 0.1.**",
        "",
        "- Warning: Beware of the dog.",
    ]


def test_all_systems_have_a_column_for_each_kind_of_queries() -> None:
    readable = evaluation_markdown(report(rcml=0.6, blind=0.5))
    assert "| queries | rcml | blind | membership |" in readable
    assert "| both items new, random negatives (1,400) | 0.600 | 0.500 | 0.400 |" in readable
    assert "| both items new, hard negatives (1,300) | 0.600 | 0.500 | 0.400 |" in readable
    assert (
        "Both items new, hard negatives: 18.5 negatives per query on average; 100 queries were left out for too few "
        "negatives." in readable
    )
    assert "random negatives: 20.0 negatives" not in readable


def test_differences_have_intervals_and_adjusted_p() -> None:
    readable = evaluation_markdown(report(rcml=0.6, blind=0.5))
    assert (
        "| blind | +0.100 (+0.050 to +0.150), p < 0.001 | +0.100 (+0.050 to +0.150), p < 0.001 |" in readable
    )
    assert "| membership | -0.200 (-0.250 to -0.150), p = 0.021 |" in readable


def test_full_catalogue_has_measures_relations_and_popularity() -> None:
    readable = evaluation_markdown(report(rcml=0.6))
    assert "**Both items new**: 300 queries with 1,400 true partners among 192 candidates." in readable
    assert "| nDCG@10 | 0.600 | 0.400 |" in readable
    assert "| Recall@10 | 0.200 | 0.133 |" in readable
    assert "| `office` | 40 | 0.600 | 0.400 |" in readable
    assert "| 10 to 80 | 900 | 0.600 | 0.400 |" in readable


def test_relation_types_sensitivity_and_seeds_are_shown() -> None:
    readable = evaluation_markdown(report(rcml=0.6))
    assert (
        "| membership | 0.200 (0.150 to 0.250) | 2.000 | +0.100 (+0.050 to +0.150), p = 0.040 |" in readable
    )
    assert (
        "In 77 cases the item has true partners under both relations, and these overlap by 0.125." in readable
    )
    assert "| partners under both relations | 0.300 | 0.200 |" in readable
    assert "| rcml `var/rcml` | 7 | 0.600 | 0.300 | 0.500 | 0.625 |" in readable
    assert "Every network was trained once." in readable


def test_costs_have_a_row_for_each_network_and_system() -> None:
    section = evaluation_markdown(report(rcml=0.6, blind=0.5)).partition("## Efficiency")[2]
    assert "Measured on Z80, 1 thread." in section
    assert "A query ranks all 192 test items" in section
    assert rows_of(section, "| blind") == [
        "| blind | 1,234,567 | 0.50 | 5.00 | 50.00 | 0.005 |",
        "| blind | 1,024 | 10,240 | 102,400 |",
    ]


def test_report_without_costs_has_no_such_section() -> None:
    bare = report(rcml=0.6).model_copy(update={"efficiency": None})
    readable = evaluation_markdown(bare)
    assert "Efficiency" not in readable
    assert "\n\n\n" not in readable
