"""RCML compared with `blind` and `clip`: `python -m benchmarks.compare [--prepared FOLDER] [--seeds 3]`.

`blind` is the unconditioned ablation, and `clip` is the CLIP baseline. The benchmark trains and evaluates each network
once per seed. It prints the means over the seeds as a table and then as one line of JSON. By default each seed
generates its own shop, clustering, split and negatives. With `--prepared` the data and its split are fixed, and the
seed determines the weights, batches, augmentation and negatives.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from model.config import EvaluateConfig, Objective, ShopConfig, TrainConfig
from model.console import say
from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.evaluation.evaluate import evaluate
from model.sample_shop.generate import make_shop
from model.training.train import train

NETWORKS: tuple[Objective, ...] = ("rcml", "blind", "clip")


def main() -> None:
    """Run the comparison and print its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--prepared", type=Path, help="folder written by `rcml prepare` (default: one sample shop per seed)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("var/compare"), help="folder for the networks and reports"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="training steps of each network")
    options = parser.parse_args()

    reports = []
    for seed in range(options.seeds):
        folder = options.out / f"seed-{seed}"
        prepared = options.prepared or _shop(folder, seed)
        for objective in NETWORKS:
            say(
                train(
                    TrainConfig(
                        prepared=prepared,
                        out=folder / objective,
                        objective=objective,
                        steps=options.steps,
                        validate_every=max(1, options.steps // 4),
                        patience=2,
                        seed=seed,
                    )
                )
            )
        say(
            evaluate(
                EvaluateConfig(
                    checkpoint=folder / "rcml",
                    clip=folder / "clip",
                    blind=folder / "blind",
                    prepared=prepared,
                    out=folder / "report",
                    seed=seed,
                )
            )
        )
        reports.append(json.loads((folder / "report" / "report.json").read_text()))
    summary = summarise(reports)
    _print(summary)
    print(json.dumps(summary))


def _shop(folder: Path, seed: int) -> Path:
    say(make_shop(ShopConfig(out=folder / "shop", seed=seed)))
    say(
        prepare(
            PrepareConfig(
                items=folder / "shop" / "items.jsonl",
                interactions=folder / "shop" / "interactions.csv",
                out=folder / "prepared",
                text_fields=("title", "categories"),
                seed=seed,
            )
        )
    )
    return folder / "prepared"


def summarise(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over the reports, the Hit@5 of each seed, and the ratios of the means."""

    def figures(network: str) -> dict[str, Any]:
        found = [report["networks"][network] for report in reports]
        hits = [one["hit_at_5"]["AVG"]["value"] for one in found]
        return {
            "hit_at_5": fmean(hits),
            "hit_at_5_of_seeds": hits,
            "relation_type_top_3": fmean(one["relation_type_top_3"]["AVG"] for one in found),
            "validity_accuracy": fmean(one["validity_accuracy"] for one in found),
            "seconds": fmean(one["seconds"] for one in found),
        }

    networks: dict[str, dict[str, Any]] = {network: figures(network) for network in NETWORKS}
    return {
        "seeds": len(reports),
        "chance": reports[0]["chance"],
        **networks,
        "ratio_to_clip": networks["rcml"]["hit_at_5"] / networks["clip"]["hit_at_5"],
        "ratio_to_blind": networks["rcml"]["hit_at_5"] / networks["blind"]["hit_at_5"],
    }


def _print(summary: dict[str, Any]) -> None:
    rows = ("hit_at_5", "relation_type_top_3", "validity_accuracy")
    title = f"AVG, mean of {summary['seeds']} seeds"
    print(f"{title:<26}" + "".join(f"{name:>9}" for name in (*NETWORKS, "chance")))
    for row in rows:
        values = "".join(f"{summary[network][row]:>9.3f}" for network in NETWORKS)
        print(f"{row:<26}{values}{summary['chance'][row]:>9.3f}")
    print(f"Hit@5 of rcml: {summary['ratio_to_clip']:.2f} x clip, {summary['ratio_to_blind']:.2f} x blind")


if __name__ == "__main__":
    main()
