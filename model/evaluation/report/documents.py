"""Files of an evaluation for readers: the plots, `report.md` and `report.html`."""

from pathlib import Path

from model.evaluation.figures import EvaluationReport

from .attention_sheet import attention_html, draw_attention_sheet
from .case_sheet import cases_html, draw_case_sheet
from .examples import Examples
from .item_map import draw_item_maps
from .markdown import evaluation_markdown
from .page import evaluation_page
from .plots import draw_plots
from .system_plots import draw_system_plots

CASES_FILE = "cases.png"
ATTENTION_FILE = "attention.png"


def write_documents(
    report: EvaluationReport, folder: Path, examples: Examples | None = None, seed: int = 0
) -> None:
    """Write the plots, `report.md` and `report.html` into `folder`; `seed` is that of the examples."""
    draw_plots(report, folder)
    draw_system_plots(report, folder)
    maps: tuple[str, ...] = ()
    drawn: dict[str, str] = {}
    if examples is not None:
        maps = draw_item_maps(examples.mapped, folder, seed)
        if examples.cases:
            draw_case_sheet(examples.cases, folder / CASES_FILE)
            drawn[CASES_FILE] = cases_html(examples.cases)
        if examples.attended:
            draw_attention_sheet(examples.attended, seed, folder / ATTENTION_FILE)
            drawn[ATTENTION_FILE] = attention_html(examples.attended, seed)
    markdown = evaluation_markdown(report, (*drawn, *maps))
    (folder / "report.md").write_text(markdown, encoding="utf-8")
    (folder / "report.html").write_text(evaluation_page(report, markdown, folder, drawn), encoding="utf-8")
