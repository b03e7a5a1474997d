"""Content of a report as plain dictionaries, with figures that tests can recognise."""

from typing import Any

from model.evaluation.figures import EvaluationReport
from model.similarity import Similarity


def network(value: float) -> dict[str, Any]:
    return {
        "hit_at_5": {
            s.value: {"value": value, "low": value - 0.05, "high": value + 0.05} for s in Similarity
        },
        "relation_type_top_3": {s.value: value / 2 for s in Similarity},
        "relation_type_top_3_calibrated": {s.value: value / 2 + 0.1 for s in Similarity},
        "relation_type_log_loss": {s.value: {"before": 2.0, "after": 2 - value} for s in Similarity},
        "validity_accuracy": 0.5 + value / 4,
        "validity_auc": 0.9,
        "validity_log_loss": {"before": 0.4, "after": 0.25},
        "validity_ece": {"before": 0.2, "after": 0.05},
        "reliability": {
            "before": [{"claims": 1399, "probability": 0.7, "share": 0.5}],
            "after": [
                {"claims": 700, "probability": 0.25, "share": 0.2},
                {"claims": 699, "probability": 0.75, "share": 0.8},
            ],
        },
        "calibration": "0123456789ab",
        "parameters": 1_234_567,
        "steps": 40,
        "seconds": 12.3,
    }


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def comparison(value: float, p: float) -> dict[str, Any]:
    return {"difference": estimate(value), "p": p / 2, "p_holm": p}


def retrieval(queries: int, left_out: int, negatives: float, **hits: float) -> dict[str, Any]:
    return {
        "queries": queries,
        "left_out": left_out,
        "negatives": negatives,
        "hit_at_5": {name: estimate(hit) for name, hit in hits.items()},
        "comparisons": {
            name: comparison(hits["rcml"] - hit, 0.0001) for name, hit in hits.items() if name != "rcml"
        },
    }


def measures(value: float) -> dict[str, Any]:
    return {
        "recall_at_5": estimate(value / 4),
        "recall_at_10": estimate(value / 3),
        "recall_at_50": estimate(value / 2),
        "ndcg_at_10": estimate(value),
        "mrr": estimate(value / 5),
    }


def cost(value: float) -> dict[str, Any]:
    return {
        "parameters": 1_234_567,
        "ms_per_item": {1: value, 10: 10 * value, 100: 100 * value},
        "ms_per_query": value / 100,
        "bytes_per_item": {1: 1_024, 10: 10_240, 100: 102_400},
    }


def content(**networks: float) -> dict[str, Any]:
    """Return the expected content of `report.json` as plain dictionaries, in the order of its keys."""
    systems = {**networks, "membership": 0.4}
    return {
        "verdict": {
            "effect": "adds", "sentence": "Conditioning adds 0.1.", "warnings": ["Beware of the dog."]
        },
        "out_of_domain": False,
        "data": {
            "items": 192, "edges": 700, "queries": 1400, "claims": 1399, "relations": 10, "candidates": 21
        },
        "chance": {
            "hit_at_5": 5 / 21, "relation_type_top_3": 0.3, "relation_type_log_loss": 2.303,
            "validity_accuracy": 0.5, "validity_auc": 0.5,
        },
        "networks": {name: network(value) for name, value in networks.items()},
        "against_chance": {
            s.value: comparison(networks["rcml"] - 5 / 21, 0.001 * (1 + place))
            for place, s in enumerate(Similarity)
        },
        "ratios": {"clip": 2.0},
        "relations": [
            {
                "relation_id": "office", "description": "Worn at the office.", "queries": 40, "hit_at_5": 0.9,
                "claims": 41, "validity_auc": 0.8, "validity_ece": 0.1,
            },
            {
                "relation_id": "garden", "description": "For the garden.", "queries": 0, "hit_at_5": None,
                "claims": 0, "validity_auc": None, "validity_ece": None,
            },
        ],
        "tested": "rcml",
        "checkpoints": {
            name: [
                {
                    "path": f"var/{name}", "seed": 7, "hit_at_5": value, "ndcg_at_10": value / 2,
                    "relation_type_top_3": 0.5, "validity_accuracy": 0.625,
                }
            ]
            for name, value in networks.items()
        },
        "baselines": {"membership": "how likely the candidate takes part"},
        "retrieval": {
            "random": retrieval(1400, 0, 20.0, **systems), "hard": retrieval(1300, 100, 18.5, **systems)
        },
        "catalogue": {
            "new": {
                "queries": 300, "pairs": 1400, "candidates": 192,
                "systems": {name: measures(value) for name, value in systems.items()},
                "comparisons": {"membership": comparison(-0.2, 0.021)},
                "relations": [
                    {
                        "relation_id": "office", "queries": 40,
                        "recall_at_10": {name: value / 3 for name, value in systems.items()},
                        "ndcg_at_10": systems,
                    }
                ],
                "popularity": [
                    {"least": 5, "most": 9, "pairs": 500, "found_at_10": systems},
                    {"least": 10, "most": 80, "pairs": 900, "found_at_10": systems},
                ],
            }
        },
        "relation_type": {
            "edges": 700,
            "top_3": {name: estimate(value / 2) for name, value in systems.items()},
            "log_loss": dict.fromkeys(systems, 2.0),
            "comparisons": {"membership": comparison(0.1, 0.04)},
        },
        "validity": {
            "claims": 1399,
            "accuracy": {name: estimate(0.5 + value / 4) for name, value in networks.items()},
            "comparisons": {},
        },
        "sensitivity": {
            "items": 192,
            "related": 77,
            "partners": 0.125,
            "answers": {name: {"related": value / 2, "all": value} for name, value in systems.items()},
        },
        "attention_entropy": {"text": 0.75, "image": 0.5},
        "efficiency": {
            "machine": "Z80, 1 thread",
            "items": 32,
            "candidates": 192,
            "systems": {name: cost(value) for name, value in networks.items()},
        },
    }  # fmt: skip


def report(**networks: float) -> EvaluationReport:
    return EvaluationReport.model_validate(content(**networks))
