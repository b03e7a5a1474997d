"""`report.html` of an evaluation: the text of `report.md` and its figures in one file that loads nothing else."""

from collections.abc import Mapping
from pathlib import Path

from model.evaluation.figures import EvaluationReport
from model.page.markdown_page import markdown_page
from model.page.page_header import Mood, page_header

TILES = {
    "items": "unseen items",
    "edges": "related pairs",
    "relations": "relations",
    "queries": "queries",
    "candidates": "candidates per query",
}
"""Counts shown below the verdict, by their key in `data` of report.json."""

MOODS: dict[str | None, Mood] = {"adds": "good", "none": "warn", "costs": "bad", None: "open"}
"""Colours of the verdict, by its effect."""


def evaluation_page(
    report: EvaluationReport, markdown: str, folder: Path, drawn: Mapping[str, str] | None = None
) -> str:
    """Return the content of `report.html`.

    `markdown` is the content of `report.md`, and `folder` contains its figures. A figure in `drawn` is shown by the
    HTML given there instead of its file.
    """
    counts = markdown.partition("\n\n## ")[0].rpartition("\n\n")[2]
    header = page_header(
        report.verdict.sentence,
        MOODS[report.verdict.effect],
        [f"**Warning:** {warning}" for warning in report.verdict.warnings],
        {label: f"{getattr(report.data, key):,}" for key, label in TILES.items()},
        " ".join(counts.split("\n")),
    )
    return markdown_page("Evaluation", header, markdown, drawn or {}, folder)
