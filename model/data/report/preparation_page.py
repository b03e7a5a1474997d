"""`report.html` of prepared data: the text of `report.md` with figures and pictures, in one file."""

from pathlib import Path
from typing import Literal

from model.page.markdown_page import markdown_page
from model.page.page_header import Mood, page_header

from .preparation_figures import filter_bars, histograms, pair_cards, pair_pictures
from .preparation_markdown import counts, sentence, warnings
from .preparation_report import PreparationReport

MOODS: dict[Literal["worth", "doubtful", "not yet"], Mood] = {
    "worth": "good",
    "doubtful": "warn",
    "not yet": "bad",
}
"""Colours of the verdict."""


def preparation_page(report: PreparationReport, markdown: str, folder: Path) -> str:
    """Return the content of `report.html`; `markdown` is that of `report.md`, and `folder` has the pictures."""
    pictures = pair_pictures(report.relations, folder)
    drawn: dict[str, str] = {}
    for number, row in enumerate(report.relations):
        if row.samples:
            drawn[f"categories-{number}"] = ""
            drawn[f"pairs-{number}"] = pair_cards(row, pictures)
    if report.filters:
        drawn["filters"] = filter_bars(report.filters)
    if report.distributions:
        drawn["distributions"] = histograms(report.distributions)
    tiles = {
        "items": f"{report.items.kept:,}",
        "relations": f"{len(report.relations):,}",
        "pairs for training": f"{sum(row.pairs.train for row in report.relations):,}",
        **({"users": f"{report.log['kept_users']:,}"} if "kept_users" in report.log else {}),
        "items skipped": f"{len(report.set_aside):,}",
    }
    verdict = report.verdict
    header = page_header(
        sentence(verdict.sentence) if verdict else "Prepared data",
        MOODS[verdict.training] if verdict else "open",
        warnings(report),
        tiles,
        counts(report),
    )
    return markdown_page("Prepared data", header, markdown, drawn)
