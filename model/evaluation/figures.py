"""`report.json` of an evaluation, as models: what `rcml evaluate` measures, computes and writes.

The table of docs/artifacts.md is made from the descriptions here: `make tables` rewrites it. Free of torch.
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
    """A value that never changes; keys of another version of rcml are ignored."""

    model_config = ConfigDict(frozen=True)


class Estimate(FrozenModel):
    """A mean over queries, and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


class Calibrated(FrozenModel, Generic[T]):
    """A figure without (`before`) and with (`after`) the checkpoint's calibration."""

    before: T
    after: T


class ReliabilityBin(FrozenModel):
    """The claims whose probability falls into one bin: how many, how probable on average, which share is true."""

    claims: int
    probability: float
    share: float


class DataCounts(FrozenModel):
    """Numbers of things that the evaluation asks about."""

    items: int = Field(description="test items")
    edges: int = Field(description="pairs of test items x relation")
    queries: int = Field(description="retrieval queries")
    claims: int = Field(description="validity claims, about half of them true")
    relations: int = Field(description="relations between different items")
    candidates: int = Field(description="candidates a query: one true partner, the rest random")


class ChanceFigures(FrozenModel):
    """Figures of a guess."""

    hit_at_5: float = Field(description="Hit@5 of a random order")
    relation_type_top_3: float = Field(description="share of edges whose relation is among three random ones")
    relation_type_log_loss: float = Field(description="log-loss of equal probabilities, in nats")
    validity_accuracy: float = Field(description="accuracy of a coin")
    validity_auc: float = Field(description="AUC of a coin")


class NetworkFigures(FrozenModel):
    """Figures of one network."""

    hit_at_5: dict[Similarity, Estimate] = Field(
        description="share of queries with the true partner among the best 5; the interval is a bootstrap over query "
        "items"
    )
    relation_type_top_3: dict[Similarity, float] = Field(
        description="share of test edges whose relation is among the three best"
    )
    relation_type_top_3_calibrated: dict[Similarity, float] = Field(
        description="the same by calibrated probability"
    )
    relation_type_log_loss: dict[Similarity, Calibrated[float]] = Field(
        description="log-loss of the probability of the true relation, in nats"
    )
    validity_accuracy: float = Field(
        description="accuracy on as many false claims as true ones, decided at a calibrated probability of 0.5"
    )
    validity_auc: float | None = Field(
        description="chance that a true claim is held likelier than a false one; null unless there are both"
    )
    validity_log_loss: Calibrated[float] = Field(
        description="log-loss of the probability of a claim, in nats"
    )
    validity_ece: Calibrated[float | None] = Field(
        description="expected calibration error over 15 bins of equal width; null without claims"
    )
    reliability: Calibrated[tuple[ReliabilityBin, ...]] = Field(
        description="the bins that hold claims, each with the number of `claims`, their mean `probability`, and the "
        "`share` of them that is true"
    )
    calibration: str = Field(description="version of the checkpoint's calibration")
    parameters: int = Field(description="number of weights")
    steps: int = Field(description="training steps")
    seconds: float = Field(description="training time in seconds")


class EvaluationReport(FrozenModel):
    """`report.json`, field for key; documented in docs/artifacts.md."""

    data: DataCounts
    chance: ChanceFigures
    networks: dict[Objective, NetworkFigures] = Field(
        description="the networks evaluated, by the objective they were trained with"
    )
    ratios: dict[Objective, float] = Field(
        description="AVG Hit@5 of the network evaluated over that of the baseline"
    )
    relations: tuple[RelationQuality, ...] = Field(
        description="one entry a relation between different items, of the network evaluated"
    )

    def save(self, folder: Path) -> None:
        """Write `report.json` into `folder`."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
