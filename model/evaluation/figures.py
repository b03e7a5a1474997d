"""Pydantic models of `report.json`, which contains all figures of `rcml evaluate`.

`make tables` generates the table in docs/artifacts.md from the descriptions here. This module does not import torch.
"""

import json
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from model.checkpoint.relation_quality import RelationQuality
from model.config import Objective
from model.similarity import Similarity

T = TypeVar("T")


class FrozenModel(BaseModel):
    """Base class of immutable models; unknown keys from another version of rcml are ignored."""

    model_config = ConfigDict(frozen=True)


class Estimate(FrozenModel):
    """Mean over queries, with the lower and upper end of its 95 % interval."""

    value: float
    low: float
    high: float


class Calibrated(FrozenModel, Generic[T]):
    """Figure without (`before`) and with (`after`) the calibration of the checkpoint."""

    before: T
    after: T


class ReliabilityBin(FrozenModel):
    """Bin of claims with similar probabilities: their number, mean probability, and share of true claims."""

    claims: int
    probability: float
    share: float


class DataCounts(FrozenModel):
    """Size of the evaluation set."""

    items: int = Field(description="number of test items")
    edges: int = Field(description="number of related pairs of test items; a pair counts once per relation")
    queries: int = Field(description="number of retrieval queries")
    claims: int = Field(description="number of validity claims; about half of them are true")
    relations: int = Field(description="number of relations between different items")
    candidates: int = Field(description="number of candidates per query: one true partner, the others random")


class ChanceFigures(FrozenModel):
    """Expected figures of a random guess."""

    hit_at_5: float = Field(description="Hit@5 of a random order")
    relation_type_top_3: float = Field(
        description="share of edges whose relation is among 3 random relations"
    )
    relation_type_log_loss: float = Field(
        description="log-loss of equal probabilities for all relations, in nats"
    )
    validity_accuracy: float = Field(description="accuracy of a random guess")
    validity_auc: float = Field(description="AUC of random scores")


class NetworkFigures(FrozenModel):
    """Figures of one network."""

    hit_at_5: dict[Similarity, Estimate] = Field(
        description="share of queries whose true partner is among the 5 best candidates; the interval is "
        "bootstrapped over query items"
    )
    relation_type_top_3: dict[Similarity, float] = Field(
        description="share of test edges whose relation is among the 3 relations with the highest cosine"
    )
    relation_type_top_3_calibrated: dict[Similarity, float] = Field(
        description="share of test edges whose relation is among the 3 relations with the highest calibrated "
        "probability"
    )
    relation_type_log_loss: dict[Similarity, Calibrated[float]] = Field(
        description="log-loss of the probability of the true relation, in nats"
    )
    validity_accuracy: float = Field(
        description="accuracy on the claims, with a threshold of 0.5 on the calibrated probability"
    )
    validity_auc: float | None = Field(
        description="probability that a true claim scores higher than a false one; null unless there are both"
    )
    validity_log_loss: Calibrated[float] = Field(
        description="log-loss of the validity probabilities, in nats"
    )
    validity_ece: Calibrated[float | None] = Field(
        description="expected calibration error over 15 bins of equal width; null if there are no claims"
    )
    reliability: Calibrated[tuple[ReliabilityBin, ...]] = Field(
        description="the bins that contain claims, each with the number of `claims`, their mean `probability`, and the "
        "`share` of true claims"
    )
    calibration: str = Field(description="version of the checkpoint's calibration")
    parameters: int = Field(description="number of weights")
    steps: int = Field(description="number of training steps")
    seconds: float = Field(description="training time in seconds")


class EvaluationReport(FrozenModel):
    """Content of `report.json`, with one field per key; docs/artifacts.md documents the keys."""

    data: DataCounts
    chance: ChanceFigures
    networks: dict[Objective, NetworkFigures] = Field(
        description="figures of each evaluated network, by its training objective"
    )
    ratios: dict[Objective, float] = Field(
        description="AVG Hit@5 of the tested network divided by AVG Hit@5 of the baseline"
    )
    relations: tuple[RelationQuality, ...] = Field(
        description="figures of the tested network for each relation between different items"
    )

    def save(self, folder: Path) -> None:
        """Write `report.json` into `folder`."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
