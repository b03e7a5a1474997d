"""Plots of all systems, networks and baselines: retrieval, relation type, validity and relation sensitivity."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from model.evaluation.figures import Estimate, EvaluationReport, Negatives

from .plots import NETWORK_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SYSTEM_COLOURS: dict[str, str] = {
    **{str(name): colour for name, colour in NETWORK_COLOURS.items()},
    "membership": "#8d6a9f",
    "text": "#c8553d",
    "popularity": "#7a9e9f",
    "co-occurrence": "#b5838d",
    "factors": "#6d597a",
    "random": "#c9c5bd",
    "frequency": "#7f8c4d",
    "frequency x membership": "#4f5d2f",
}
"""Colour of each system, the same in all plots."""

OTHER_COLOUR = "#777777"

CHANCE_COLOUR = "#b00020"

TITLES: dict[Negatives, str] = {
    "random": "Hit@5, random negatives",
    "hard": "Hit@5, hard negatives",
    "training": "Hit@5, known query item",
}

WIDTH = 6.2
"""Width of a plot in inches. It is narrow, so that its text can be read on a phone."""

ROW = 0.24
"""Height of a bar with its gap in inches."""


def draw_system_plots(report: EvaluationReport, folder: Path) -> None:
    """Write retrieval.png, relation_type.png, validity.png and, with several relations, sensitivity.png."""
    draw_retrieval(report, folder / "retrieval.png")
    types, chance = report.relation_type.top_3, report.chance
    _draw_one(
        folder / "relation_type.png",
        "Relation type: Top-3 (95 % interval)",
        types,
        chance.relation_type_top_3,
    )
    _draw_one(
        folder / "validity.png",
        "Relation validity: accuracy (95 % interval)",
        report.validity.accuracy,
        chance.validity_accuracy,
    )
    if report.sensitivity is not None:
        draw_sensitivity(report, folder / "sensitivity.png")


def draw_retrieval(report: EvaluationReport, path: Path) -> None:
    """Draw Hit@5 of all systems for each kind of queries, and nDCG@10 in the full catalogue."""
    panels: list[tuple[str, Mapping[str, Estimate], float | None]] = [
        (TITLES[kind], own.hit_at_5, report.chance.hit_at_5) for kind, own in report.retrieval.items()
    ]
    if (new := report.catalogue.get("new")) is not None:
        measured = {name: own.ndcg_at_10 for name, own in new.systems.items()}
        panels.append(("nDCG@10, full catalogue", measured, None))
    systems = max(len(values) for _, values, _ in panels)
    rows = -(-len(panels) // 2)
    figure = new_figure(rows * (0.55 + ROW * systems))
    grid = figure.subplots(rows, 2, sharey=True, squeeze=False)
    for axes, (title, values, chance) in zip(grid.flat, panels, strict=False):
        draw_bars(axes, title, values, chance)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    save(figure, path)


def draw_sensitivity(report: EvaluationReport, path: Path) -> None:
    """Draw how much the ten best candidates overlap under two relations, beside the overlap of the true partners."""
    own = report.sensitivity
    assert own is not None
    overlaps = {name: one.all if one.related is None else one.related for name, one in own.answers.items()}
    values = {name: Estimate(value=one, low=one, high=one) for name, one in overlaps.items()}
    figure = new_figure(0.8 + ROW * len(values))
    axes = figure.subplots()
    draw_bars(axes, "Overlap of the 10 best candidates under two relations", values, None)
    if own.partners is not None:
        axes.axvline(own.partners, color="#2f7d4f", linewidth=1.6)
        axes.text(
            own.partners + 0.015, -0.75, "true partners", color="#2f7d4f", fontsize=9, va="center", weight="bold"
        )  # fmt: skip
    save(figure, path)


def _draw_one(path: Path, title: str, values: Mapping[str, Estimate], chance: float) -> None:
    """Draw one panel of bars with the chance level."""
    figure = new_figure(0.7 + ROW * len(values))
    draw_bars(figure.subplots(), title, values, chance)
    save(figure, path)


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """Return an empty figure of the given size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure."""
    with warnings.catch_warnings():
        # Names in scripts that matplotlib's font lacks are readable in report.html, whose text is HTML.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, metadata={"Software": None})


def draw_bars(axes: "Axes", title: str, values: Mapping[str, Estimate], chance: float | None) -> None:
    """Draw one bar per system with its 95 % interval and value, the first system on top."""
    for row, (name, own) in enumerate(values.items()):
        axes.barh(row, own.value, 0.74, color=SYSTEM_COLOURS.get(name, OTHER_COLOUR))
        if own.high > own.low:
            axes.plot([own.low, own.high], [row, row], color="#333333", linewidth=1.2)
        axes.text(max(own.value, own.high) + 0.015, row, f"{own.value:.2f}", va="center", fontsize=8.5)
    if chance is not None:
        axes.axvline(chance, color=CHANCE_COLOUR, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.4, -1.1 if chance is None else -0.6)
    axes.set_xlim(0, 1.13)
    axes.set_xticks([0, 0.5, 1])
    axes.tick_params(labelsize=9, length=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)


def plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs in names as mathematics."""
    return text.replace("$", r"\$")
