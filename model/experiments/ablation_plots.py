"""Plot of a study, made from the figures in `ablation.json`: bars of the ablations, or the curves of a sweep."""

from pathlib import Path
from typing import TYPE_CHECKING

from model.evaluation.figures import Estimate
from model.similarity import Similarity

from .ablation_report import AblationReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#2a6f97", "#e9a03b", "#5b8c5a", "#8e5572", "#c8553d", "#6b7a8f", "#a3a3a3")
"""Colours of the variants or similarities, from first to last; repeated if there are more."""

LOGARITHMIC = ("temperature", "batch-size")
"""Sweeps whose values grow by factors."""


def draw_ablation(report: AblationReport, folder: Path) -> None:
    """Write ablation.png into `folder`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if report.sweeps:
        _curves(axes, report)
    else:
        _bars(axes, report)
    axes.axhline(report.chance.hit_at_5, color="#b00020", linestyle="--", linewidth=1.4, label="chance")
    axes.set_ylim(0, 1)
    axes.set_ylabel("Hit@5")
    axes.set_title(
        f"Hit@5 among {report.candidates} candidates, unseen items (95 % interval)", loc="left", fontsize=11
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=4, frameon=False, loc="outside lower center", fontsize=9)
    figure.savefig(folder / "ablation.png", metadata={"Software": None})


def _bars(axes: "Axes", report: AblationReport) -> None:
    """Draw a group of bars per similarity with one bar per variant, as in figure 4 of the paper."""
    width = 0.85 / len(report.variants)
    for place, variant in enumerate(report.variants):
        hits = [variant.hit_at_5[similarity] for similarity in Similarity]
        axes.bar(
            [group - 0.425 + width * (place + 0.5) for group in range(len(Similarity))],
            [hit.value for hit in hits],
            width * 0.92,
            yerr=_spread(hits),
            color=COLOURS[place % len(COLOURS)],
            label=variant.name,
            capsize=2,
            ecolor="#333333",
        )
    axes.set_xticks(range(len(Similarity)), [similarity.value for similarity in Similarity])


def _curves(axes: "Axes", report: AblationReport) -> None:
    """Draw a curve per similarity over the values of the sweep, as in figure 5 of the paper."""
    values = [variant.value for variant in report.variants if variant.value is not None]
    for place, similarity in enumerate(reversed(Similarity)):  # AVG first
        hits = [variant.hit_at_5[similarity] for variant in report.variants]
        whole = similarity is Similarity.AVG
        axes.errorbar(
            values,
            [hit.value for hit in hits],
            yerr=_spread(hits) if whole else None,
            color=COLOURS[place],
            label=similarity.value,
            marker="o",
            markersize=4,
            linewidth=2.2 if whole else 1.2,
            capsize=2,
        )
    if report.study in LOGARITHMIC:
        axes.set_xscale("log")
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel(f"{report.study.replace('-', ' ')} (reference: {report.reference})")


def _spread(hits: list[Estimate]) -> list[list[float]]:
    """Return the distances from the means to the ends of their intervals."""
    return [[hit.value - hit.low for hit in hits], [hit.high - hit.value for hit in hits]]
