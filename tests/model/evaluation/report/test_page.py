"""`report.html` shows the figures of `report.json` in one file that loads nothing else."""

import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from model.evaluation.figures import EvaluationReport
from model.evaluation.report.documents import write_documents
from tests.model.page.parsed_page import Page

from .contents import content, report

NETWORKS = {"rcml": 0.6, "blind": 0.5, "clip": 0.3}


def written(folder: Path, raw: dict[str, Any]) -> Page:
    write_documents(EvaluationReport.model_validate(raw), folder)
    return Page((folder / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(tmp_path_factory.mktemp("page"), content(**NETWORKS))


def test_tables_show_the_figures_of_the_report(page: Page) -> None:
    raw = content(**NETWORKS)
    hits = page.table("queries", "membership")
    names = hits[0][1:]
    assert names == ["rcml", "blind", "clip", "membership"]
    for row, own in zip(hits[1:], raw["retrieval"].values(), strict=True):
        assert row[1:] == [f"{own['hit_at_5'][name]['value']:.3f}" for name in names]
    measures = {row[0]: row[1:] for row in page.table("measure", "membership")[1:]}
    systems = raw["catalogue"]["new"]["systems"]
    assert measures["nDCG@10"] == [f"{systems[name]['ndcg_at_10']['value']:.3f}" for name in names]
    overlaps = {row[0]: row[1:] for row in page.table("cases", "membership")[1:]}
    answers = raw["sensitivity"]["answers"]
    assert overlaps["all (192 items)"] == [f"{answers[name]['all']:.3f}" for name in names]


def test_verdict_warnings_and_counts_are_shown(page: Page) -> None:
    assert "Conditioning adds 0.1." in page.text
    assert "Warning: Beware of the dog." in page.text
    assert "1,400queries" in page.text


def test_page_loads_nothing_and_runs_no_script(page: Page) -> None:
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert [address[:11] for address in page.loaded if not address.startswith("#")] == (
        ["data:image/"] * page.tags.count("img")
    )


def test_embedded_figures_are_those_of_the_folder(tmp_path: Path) -> None:
    page = written(tmp_path, content(**NETWORKS))
    embedded = {b64decode(uri.partition(",")[2]) for uri in page.loaded if uri.startswith("data:image/png")}
    names = {path.name for path in tmp_path.glob("*.png") if path.read_bytes() in embedded}
    assert names == {
        "hit_at_5.png", "retrieval.png", "relation_type.png", "validity.png", "tasks.png", "sensitivity.png",
        "reliability.png",
    }  # fmt: skip


def test_links_of_the_contents_lead_to_sections(tmp_path: Path) -> None:
    write_documents(report(**NETWORKS), tmp_path)
    html = (tmp_path / "report.html").read_text("utf-8")
    links = re.findall(r'href="#([^"]+)"', html)
    assert links == re.findall(r'<section id="([^"]+)"', html)
    assert len(set(links)) == len(links) == 11


def test_text_of_the_user_is_escaped(tmp_path: Path) -> None:
    raw = content(**NETWORKS)
    raw["relations"][0]["relation_id"] = "<script>alert(1)</script>"
    raw["verdict"]["sentence"] = 'A <img src="http://example.com/x.png"> and **more**.'
    page = written(tmp_path, raw)
    assert "script" not in page.tags
    assert not [address for address in page.loaded if "example.com" in address]
    assert "<script>alert(1)</script>" in page.text
    assert 'A <img src="http://example.com/x.png"> and more.' in page.text


def test_bar_in_a_name_is_shown_in_its_cell(tmp_path: Path) -> None:
    raw = content(**NETWORKS)
    raw["relations"][0]["relation_id"] = "home|office\\|garden"
    table = written(tmp_path, raw).table("relation", "AUC")
    assert table[1] == ["home|office\\|garden", "40", "0.900", "41", "0.800", "0.100"]


def test_report_without_sensitivity_has_no_such_figure(tmp_path: Path) -> None:
    page = written(tmp_path, {**content(**NETWORKS), "sensitivity": None})
    assert "There is only one relation." in page.text
    assert not (tmp_path / "sensitivity.png").exists()
