"""The evaluation's `report.md` and plots, drawn from the same figures as `report.json`."""

from math import log
from pathlib import Path
from typing import Any

from model.similarity import Similarity

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
        "## Calibration",
        "",
        "A probability is right when of the claims it is given to, that share is true. ECE is how far it is off, on "
        "average; log-loss, in nats, is what the probability given to the truth leaves to be known.",
        "",
        f"| | {' | '.join(names)} | chance |",
        f"|---|{'---:|' * (len(names) + 1)}",
        *_calibration_rows([networks[name] for name in names], chance),
        "",
        "![Reliability of validity probabilities](reliability.png)",
        "",
        "## By relation",
        "",
        "AVG similarity; AUC and ECE of calibrated validity. Few questions make a figure rough, and an ECE larger.",
        "",
        "| relation | queries | Hit@5 | claims | AUC | ECE |",
        "|---|---:|---:|---:|---:|---:|",
        *(
            f"| `{row['relation_id']}` | {row['queries']} | {_figure(row['hit_at_5'])} | {row['claims']} | "
            f"{_figure(row['validity_auc'])} | {_figure(row['validity_ece'])} |"
            for row in report["relations"]
        ),
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
    """Write hit_at_5.png, tasks.png and reliability.png into `folder`."""
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
    _reliability(folder / "reliability.png", {name: networks[name] for name in hits})


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


def _reliability(path: Path, networks: dict[str, dict[str, Any]]) -> None:
    """A panel a network: what it says of claims against how many are true, and below, how many it says so of."""
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
        styles = {"before": ("#444444", ":", "v"), "after": (COLOURS[name], "-", "o")}
        for stage, (colour, line, marker) in styles.items():
            bins = network["reliability"][stage]
            above.plot(
                [one["probability"] for one in bins],
                [one["share"] for one in bins],
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=f"{stage}: ECE {network['validity_ece'][stage]:.3f}",
            )
        bins = network["reliability"]["after"]
        below.bar(
            [one["probability"] for one in bins],
            [one["claims"] for one in bins],
            width=0.05,
            color=COLOURS[name],
        )
        above.set_title(name, loc="left", fontsize=10)
        above.legend(frameon=False, fontsize=8, loc="upper left")
        below.set_xlabel("probability said", fontsize=9)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    panels[0, 0].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    panels[0, 0].set_ylabel("share that is true", fontsize=9)
    panels[1, 0].set_ylabel("claims", fontsize=9)
    figure.suptitle("Validity before and after calibration, unseen items", x=0.01, ha="left", fontsize=11)
    figure.savefig(path, metadata={"Software": None})


def _calibration_rows(networks: list[dict[str, Any]], chance: dict[str, float]) -> list[str]:
    def row(name: str, figures: list[str], of_chance: float | None) -> str:
        return f"| {name} | {' | '.join(figures)} | {_figure(of_chance)} |"

    def both(before: float | None, after: float | None) -> str:
        return f"{_figure(before)}, calibrated {_figure(after)}"

    return [
        row("validity AUC", [_figure(one["validity_auc"]) for one in networks], chance["validity_auc"]),
        row("validity ECE", [both(*one["validity_ece"].values()) for one in networks], None),
        row("validity log-loss", [both(*one["validity_log_loss"].values()) for one in networks], log(2)),
        row(
            "relation-type log-loss, AVG",
            [both(*one["relation_type_log_loss"]["AVG"].values()) for one in networks],
            chance["relation_type_log_loss"],
        ),
        row(
            "relation-type Top-3, AVG",
            [
                both(one["relation_type_top_3"]["AVG"], one["relation_type_top_3_calibrated"]["AVG"])
                for one in networks
            ],
            chance["relation_type_top_3"],
        ),
    ]


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _with_interval(hit: dict[str, float]) -> str:
    return f"{hit['value']:.3f} ({hit['low']:.3f} to {hit['high']:.3f})"
