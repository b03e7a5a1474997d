"""Files of the report of `rcml prepare`: `report.json` for programs, `report.md` and `report.html` for people."""

import json
from pathlib import Path

from .preparation_markdown import preparation_markdown
from .preparation_page import preparation_page
from .preparation_report import PreparationReport


def write_report(report: PreparationReport, folder: Path) -> None:
    """Write the report into `folder`, which contains the pictures of the items."""
    markdown = preparation_markdown(report)
    content = json.dumps(report.model_dump(mode="json"), indent=2) + "\n"
    (folder / "report.json").write_text(content, encoding="utf-8")
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    (folder / "report.html").write_text(preparation_page(report, markdown, folder), encoding="utf-8")
