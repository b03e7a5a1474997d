"""Plots of an evaluation, made from the figures in `report.json`."""

from collections.abc import Mapping
from pathlib import Path

from model.evaluation.figures import EvaluationReport, NetworkFigures, Role
from model.similarity import Similarity

from .markdown import networks_in_order

NETWORK_COLOURS: dict[Role, str] = {
    "rcml": "#2a6f97",
    "blind": "#e9a03b",
    "clip": "#a3a3a3",
    "siglip": "#8e5572",
    "unicl": "#d1495b",
    "declip": "#6b7a8f",
    "against": "#5b8c5a",
}


def draw_plots(report: EvaluationReport, folder: Path) -> None:
    """Write hit_at_5.png, tasks.png and reliability.png into `folder`."""
    networks, chance = networks_in_order(report), report.chance
    hits = {
        name: [network.hit_at_5[similarity] for similarity in Similarity]
        for name, network in networks.items()
    }
    _bars(
        folder / "hit_at_5.png",
        title=f"Hit@5 among {report.data.candidates} candidates, unseen items (95 % interval)",
        groups=[similarity.value for similarity in Similarity],
        values={name: [hit.value for hit in row] for name, row in hits.items()},
        errors={
            name: [(hit.value - hit.low, hit.high - hit.value) for hit in row] for name, row in hits.items()
        },
        chance=[chance.hit_at_5] * len(Similarity),
    )
    _bars(
        folder / "tasks.png",
        title="Three tasks on unseen items (AVG similarity)",
        groups=["retrieval\nHit@5", "relation type\nTop-3", "validity\naccuracy"],
        values={
            name: [
                network.hit_at_5[Similarity.AVG].value,
                network.relation_type_top_3[Similarity.AVG],
                network.validity_accuracy,
            ]
            for name, network in networks.items()
        },
        errors={},
        chance=[chance.hit_at_5, chance.relation_type_top_3, chance.validity_accuracy],
    )
    _reliability(folder / "reliability.png", networks)


def _bars(
    path: Path,
    title: str,
    groups: list[str],
    values: dict[Role, list[float]],
    errors: dict[Role, list[tuple[float, float]]],
    chance: list[float],
) -> None:
    """Draw groups of bars with one bar per network, and a line at the chance level of each group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(8, 2 * len(values)), 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    width = 0.8 / len(values)
    for number, (name, row) in enumerate(values.items()):
        left = [group - 0.4 + width * (number + 0.5) for group in range(len(groups))]
        spread = [list(side) for side in zip(*errors[name], strict=True)] if name in errors else None
        axes.bar(
            left,
            row,
            width * 0.92,
            yerr=spread,
            color=NETWORK_COLOURS[name],
            label=name,
            capsize=2.5,
            ecolor="#333333",
        )
        for x, value in zip(left, row, strict=True):
            axes.text(
                x, 0.02, f"{value:.2f}", ha="center", va="bottom", fontsize=8, color="white", weight="bold"
            )
    for group, level in enumerate(chance):
        axes.hlines(
            level, group - 0.45, group + 0.45, color="#b00020", linestyle="--", linewidth=1.4,
            label="chance" if group == 0 else "",
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)
    axes.set_ylim(0, 1)
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=len(values) + 1, frameon=False, loc="outside lower center", fontsize=9)
    figure.savefig(path, metadata={"Software": None})


def _reliability(path: Path, networks: Mapping[Role, NetworkFigures]) -> None:
    """Draw a reliability diagram for each network, and below it the number of claims in each bin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 3.0 * len(networks), 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        2, len(networks), sharex=True, sharey="row", squeeze=False, height_ratios=(3.4, 1)
    )
    for column, (name, network) in enumerate(networks.items()):
        above, below = panels[:, column]
        above.plot([0, 1], [0, 1], color="#b00020", linestyle="--", linewidth=1.2, label="exact")
        bins, error = network.reliability, network.validity_ece
        curves = (
            ("before", bins.before, error.before, "#444444", ":", "v"),
            ("after", bins.after, error.after, NETWORK_COLOURS[name], "-", "o"),
        )
        for stage, points, ece, colour, line, marker in curves:
            above.plot(
                [point.probability for point in points],
                [point.share for point in points],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=f"{stage}: ECE {ece:.3f}",
            )
        below.bar(
            [point.probability for point in bins.after],
            [point.claims for point in bins.after],
            width=0.05,
            color=NETWORK_COLOURS[name],
        )
        above.set_title(name, loc="left", fontsize=10)
        above.legend(frameon=False, fontsize=8, loc="upper left")
        below.set_xlabel("predicted probability", fontsize=9)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    panels[0, 0].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    panels[0, 0].set_ylabel("share of true claims", fontsize=9)
    panels[1, 0].set_ylabel("claims", fontsize=9)
    figure.suptitle(
        "Relation validity before and after calibration, unseen items", x=0.01, ha="left", fontsize=11
    )
    figure.savefig(path, metadata={"Software": None})
