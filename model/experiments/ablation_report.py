"""Pydantic models of `ablation.json`, which contains all figures of `rcml ablate`."""

from pydantic import Field

from model.config import Study
from model.evaluation.figures import ChanceFigures, Comparison, Estimate, FrozenModel
from model.similarity import Similarity


class TrainedVariant(FrozenModel):
    """One training of a variant, to show how much the figures vary with the seed."""

    path: str = Field(description="folder of the checkpoint")
    digest: str = Field(description="digest of the checkpoint")
    seed: int = Field(description="random seed of the training")
    hit_at_5: float = Field(description="AVG Hit@5")


class VariantFigures(FrozenModel):
    """Figures of one variant, means over its seeds; they are those that `rcml evaluate` reports."""

    name: str = Field(description="name of the variant")
    options: str = Field(description="options that the variant changes; empty if none")
    value: float | None = Field(description="value of the option that a sweep varies; null in other studies")
    hit_at_5: dict[Similarity, Estimate] = Field(
        description="Hit@5; the interval is bootstrapped over query items"
    )
    relation_type_top_3: float = Field(description="AVG Top-3 accuracy with calibrated probabilities")
    validity_accuracy: float = Field(description="accuracy on the claims")
    drop: Comparison | None = Field(
        description="AVG Hit@5 of the reference minus that of the variant, on the same queries; p is adjusted for the "
        "number of variants; null for the reference"
    )
    steps: int = Field(description="number of training steps, the rounded mean")
    seconds: float = Field(description="training time in seconds, the mean")
    trained: tuple[TrainedVariant, ...] = Field(description="trainings, in the order of their seeds")


class AblationReport(FrozenModel):
    """Content of `ablation.json`."""

    study: Study = Field(description="ablations, objectives, or the option whose values are compared")
    reference: str = Field(description="name of the variant that the others are compared with")
    prepared: str = Field(description="digest of the prepared data")
    items: int = Field(description="number of test items")
    queries: int = Field(description="number of retrieval queries")
    candidates: int = Field(description="number of candidates per query: one true partner, the others random")
    chance: ChanceFigures = Field(description="expected figures of a random guess")
    variants: tuple[VariantFigures, ...] = Field(description="variants in the order of the study")
    left_out: dict[str, str] = Field(description="variants that were not trained, with the reason")

    @property
    def sweeps(self) -> bool:
        """Whether the variants are the values of one number."""
        return self.variants[0].value is not None

    @property
    def seeds(self) -> int:
        """Number of trainings per variant."""
        return len(self.variants[0].trained)
