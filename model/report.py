"""The evaluation's `report.md` and plots, drawn from the same figures as `report.json`."""

from pathlib import Path
from typing import Any

from .records import Similarity

COLOURS = {"rcml": "#2a6f97", "blind": "#e9a03b", "clip": "#a3a3a3"}
ORDER = ("rcml", "blind", "clip")
MEANING = {
    "rcml": "RCML, conditioned on the relation",
    "blind": "blind: the same pairs, one constant relation text",
    "clip": "clip: self-pairs and cross-modal terms only",
}


def in_markdown(report: dict[str, Any]) -> str:
    """The report for a reader."""
    data, chance, networks = report["data"], report["chance"], report["networks"]
    names = [name for name in ORDER if name in networks]
    lines = [
        "# Evaluation",
        "",
        f"{data['items']} test items that training never saw, {data['edges']} related pairs, "
        f"{data['relations']} relations. Retrieval asks {data['queries']} queries of {data['candidates']} "
        f"candidates each: one true partner, the rest random.",
        "",
        "## Retrieval: Hit@5, with 95 % interval",
        "",
        f"| similarity | {' | '.join(names)} | chance |",
        f"|---|{'---:|' * (len(names) + 1)}",
        *(
            f"| {similarity} | "
            + " | ".join(_with_interval(networks[name]["hit_at_5"][similarity]) for name in names)
            + f" | {chance['hit_at_5']:.3f} |"
            for similarity in Similarity
        ),
        "",
        "![Hit@5 of the five similarities](hit_at_5.png)",
        "",
        "## Relation type: Top-3 accuracy",
        "",
        f"| similarity | {' | '.join(names)} | chance |",
        f"|---|{'---:|' * (len(names) + 1)}",
        *(
            f"| {similarity} | "
            + " | ".join(f"{networks[name]['relation_type_top_3'][similarity]:.3f}" for name in names)
            + f" | {chance['relation_type_top_3']:.3f} |"
            for similarity in Similarity
        ),
        "",
        f"## Relation validity: accuracy on {data['claims']} claims, half of them true",
        "",
        f"| {' | '.join(names)} | chance |",
        f"|{'---:|' * (len(names) + 1)}",
        "| "
        + " | ".join(f"{networks[name]['validity_accuracy']:.3f}" for name in names)
        + f" | {chance['validity_accuracy']:.3f} |",
        "",
        "![Three tasks, AVG similarity](tasks.png)",
        "",
        "## Networks",
        "",
        *(
            f"- **{name}** ({MEANING[name]}): {networks[name]['parameters']:,} parameters, "
            f"{networks[name]['steps']} steps, trained in {networks[name]['seconds']:.0f} s"
            for name in names
        ),
        "",
        *(
            f"RCML's AVG Hit@5 is {ratio:.2f} times that of `{rival}`."
            for rival, ratio in report["ratios"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def draw_plots(report: dict[str, Any], folder: Path) -> None:
    """Write hit_at_5.png and tasks.png into `folder`."""
    networks, chance = report["networks"], report["chance"]
    hits = {
        name: [networks[name]["hit_at_5"][similarity] for similarity in Similarity]
        for name in ORDER
        if name in networks
    }
    _bars(
        folder / "hit_at_5.png",
        title=f"Hit@5 of {report['data']['candidates']} candidates, unseen items (95 % interval)",
        groups=[similarity.value for similarity in Similarity],
        values={name: [hit["value"] for hit in row] for name, row in hits.items()},
        errors={
            name: [(hit["value"] - hit["low"], hit["high"] - hit["value"]) for hit in row]
            for name, row in hits.items()
        },
        chance=[chance["hit_at_5"]] * len(Similarity),
    )
    _bars(
        folder / "tasks.png",
        title="Three tasks on unseen items (AVG similarity)",
        groups=["retrieval\nHit@5", "relation type\nTop-3", "validity\naccuracy"],
        values={
            name: [
                networks[name]["hit_at_5"]["AVG"]["value"],
                networks[name]["relation_type_top_3"]["AVG"],
                networks[name]["validity_accuracy"],
            ]
            for name in hits
        },
        errors={},
        chance=[chance["hit_at_5"], chance["relation_type_top_3"], chance["validity_accuracy"]],
    )


def _bars(
    path: Path,
    title: str,
    groups: list[str],
    values: dict[str, list[float]],
    errors: dict[str, list[tuple[float, float]]],
    chance: list[float],
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), dpi=150, layout="constrained")
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
            color=COLOURS[name],
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


def _with_interval(hit: dict[str, float]) -> str:
    return f"{hit['value']:.3f} ({hit['low']:.3f} to {hit['high']:.3f})"
