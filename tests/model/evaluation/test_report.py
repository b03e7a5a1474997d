"""`report.md` and the plots show the figures of `report.json`."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.evaluation.figures import EvaluationReport
from model.evaluation.report import NETWORK_COLOURS, draw_plots, evaluation_markdown
from model.similarity import Similarity


def network(value: float) -> dict[str, Any]:
    return {
        "hit_at_5": {
            s.value: {"value": value, "low": value - 0.05, "high": value + 0.05} for s in Similarity
        },
        "relation_type_top_3": {s.value: value / 2 for s in Similarity},
        "relation_type_top_3_calibrated": {s.value: value / 2 + 0.1 for s in Similarity},
        "relation_type_log_loss": {s.value: {"before": 2.0, "after": 2 - value} for s in Similarity},
        "validity_accuracy": 0.5 + value / 4,
        "validity_auc": 0.9,
        "validity_log_loss": {"before": 0.4, "after": 0.25},
        "validity_ece": {"before": 0.2, "after": 0.05},
        "reliability": {
            "before": [{"claims": 1399, "probability": 0.7, "share": 0.5}],
            "after": [
                {"claims": 700, "probability": 0.25, "share": 0.2},
                {"claims": 699, "probability": 0.75, "share": 0.8},
            ],
        },
        "calibration": "0123456789ab",
        "parameters": 1_234_567,
        "steps": 40,
        "seconds": 12.3,
    }


def content(**networks: float) -> dict[str, Any]:
    """Return the expected content of `report.json` as plain dictionaries, in the order of its keys."""
    return {
        "data": {
            "items": 192, "edges": 700, "queries": 1400, "claims": 1399, "relations": 10, "candidates": 21
        },
        "chance": {
            "hit_at_5": 5 / 21, "relation_type_top_3": 0.3, "relation_type_log_loss": 2.303,
            "validity_accuracy": 0.5, "validity_auc": 0.5,
        },
        "networks": {name: network(value) for name, value in networks.items()},
        "ratios": {"clip": 2.0},
        "relations": [
            {
                "relation_id": "office", "description": "Worn at the office.", "queries": 40, "hit_at_5": 0.9,
                "claims": 41, "validity_auc": 0.8, "validity_ece": 0.1,
            },
            {
                "relation_id": "garden", "description": "For the garden.", "queries": 0, "hit_at_5": None,
                "claims": 0, "validity_auc": None, "validity_ece": None,
            },
        ],
    }  # fmt: skip


def report(**networks: float) -> EvaluationReport:
    return EvaluationReport.model_validate(content(**networks))


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
        "| TT | 0.600 (0.550 to 0.650) | 0.300 (0.250 to 0.350) | 0.238 |",
        "| TT | 0.300 | 0.150 | 0.300 |",
    ]
    assert "| rcml | clip | chance |\n|---:|---:|---:|\n| 0.650 | 0.575 | 0.500 |" in readable


def test_networks_have_a_fixed_order() -> None:
    readable = evaluation_markdown(report(clip=0.3, rcml=0.6, blind=0.5))
    assert rows_of(readable, "| similarity |") == ["| similarity | rcml | blind | clip | chance |"] * 2


def test_states_test_data_baseline_ratios_and_network_sizes() -> None:
    readable = evaluation_markdown(report(rcml=0.6, clip=0.3))
    assert "192 items that training never saw, 700 related pairs and 10 relations." in readable
    assert "RCML's AVG Hit@5 is 2.00 times that of `clip`." in readable
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
    assert rows_of(readable, "| `") == [
        "| `office` | 40 | 0.900 | 41 | 0.800 | 0.100 |",
        "| `garden` | 0 |  | 0 |  |  |",
    ]


def test_table_headers_and_separators_have_equal_numbers_of_cells() -> None:
    lines = evaluation_markdown(report(rcml=0.6, clip=0.3, blind=0.5)).splitlines()
    for head, rule in pairwise(lines):
        if rule.startswith("|--"):
            assert head.count("|") == rule.count("|")


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plots")
    draw_plots(report(rcml=0.6, clip=0.3, blind=0.5), folder)
    return folder


def coloured(picture: Path, colour: str) -> int:
    rgb = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return int((np.asarray(Image.open(picture).convert("RGB")) == rgb).all(axis=2).sum())


@pytest.mark.parametrize("name", ["hit_at_5.png", "tasks.png"])
def test_bar_sizes_are_proportional_to_figures(name: str, plots: Path) -> None:
    rcml, clip, blind = (
        coloured(plots / name, NETWORK_COLOURS[network]) for network in ("rcml", "clip", "blind")
    )
    assert rcml > blind > clip > 5000
    if name == "hit_at_5.png":
        assert rcml / clip == pytest.approx(2.0, abs=0.3)


def test_reliability_plot_has_a_panel_per_network(plots: Path) -> None:
    for colour in NETWORK_COLOURS.values():
        assert coloured(plots / "reliability.png", colour) > 500


def test_plots_of_equal_reports_are_byte_identical(plots: Path, tmp_path: Path) -> None:
    draw_plots(report(rcml=0.6, clip=0.3, blind=0.5), tmp_path)
    for name in ("hit_at_5.png", "tasks.png", "reliability.png"):
        assert (tmp_path / name).read_bytes() == (plots / name).read_bytes()
