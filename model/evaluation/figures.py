"""Pydantic models of `report.json`, which contains all figures of `rcml evaluate`.

`make tables` generates the table in docs/artifacts.md from the descriptions here. This module does not import torch.
"""

import json
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from model.checkpoint.relation_quality import RelationQuality
from model.embeddings.attention_entropy import AttentionEntropy
from model.similarity import Similarity

T = TypeVar("T")

Role = Literal["rcml", "blind", "clip", "siglip", "unicl", "declip", "against"]
"""Role of a network in an evaluation: its training objective, or `against` for one from --against."""

Negatives = Literal["random", "hard", "training"]
"""Kind of sampled queries.

`random`: the paper's, both items new; `hard`: the same queries with negatives that have a partner under the relation;
`training`: the query item is a training item, its partner is new, and the negatives are random.
"""

Catalogue = Literal["new", "training"]
"""Kind of queries for the full catalogue: whether the query item is new or a training item; its partners are new."""


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
    """Size of the evaluation set of the paper's three tasks."""

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
        "`share` of true claims; several checkpoints count their claims together"
    )
    calibration: str = Field(
        description="version of the checkpoint's calibration; of several checkpoints, separated by commas"
    )
    parameters: int = Field(description="number of weights")
    steps: int = Field(description="number of training steps; of several checkpoints, the rounded mean")
    seconds: float = Field(description="training time in seconds")


class CheckpointFigures(FrozenModel):
    """Figures of one checkpoint, to show how much they vary with the seed."""

    path: str = Field(description="folder of the checkpoint")
    seed: int | None = Field(description="random seed of the training; null if it was not recorded")
    hit_at_5: float = Field(description="AVG Hit@5")
    ndcg_at_10: float = Field(description="AVG nDCG@10 in the full catalogue, all items new")
    relation_type_top_3: float = Field(description="AVG Top-3 accuracy with calibrated probabilities")
    validity_accuracy: float = Field(description="accuracy on the claims")


class Comparison(FrozenModel):
    """Tested network minus a rival, or minus chance, on the same cases.

    The interval of `difference` is bootstrapped over items. `p` is the two-sided p of a sign-flip permutation test over
    items with 10,000 draws, so the least p is 1/10,001. `p_holm` is adjusted for the number of comparisons in the table
    (Holm 1979).
    """

    difference: Estimate
    p: float
    p_holm: float


class RetrievalFigures(FrozenModel):
    """Hit@5 by AVG similarity of all systems on sampled candidates."""

    queries: int = Field(description="number of queries")
    left_out: int = Field(description="number of queries that were left out for too few negatives")
    negatives: float = Field(description="mean number of negatives per query")
    hit_at_5: dict[str, Estimate] = Field(description="Hit@5; the interval is bootstrapped over query items")
    comparisons: dict[str, Comparison] = Field(
        description="Hit@5 of the tested network minus that of each rival"
    )


class CatalogueMeasures(FrozenModel):
    """Measures of one system on the full catalogue, means over queries."""

    recall_at_5: Estimate
    recall_at_10: Estimate
    recall_at_50: Estimate
    ndcg_at_10: Estimate
    mrr: Estimate


class RelationMeasures(FrozenModel):
    """Figures of the queries under one relation."""

    relation_id: str = Field(description="ID of the relation")
    queries: int = Field(description="number of queries under the relation")
    recall_at_10: dict[str, float] = Field(description="Recall@10 of these queries")
    ndcg_at_10: dict[str, float] = Field(description="nDCG@10 of these queries")


class PopularityBucket(FrozenModel):
    """Figures of the true partners with similar popularity."""

    least: int = Field(description="lowest number of users in the bucket, or of partners if there is no log")
    most: int = Field(description="highest number of users or partners in the bucket")
    pairs: int = Field(description="number of pairs of a query and a true partner")
    found_at_10: dict[str, float] = Field(description="share of these partners among the 10 best candidates")


class CatalogueFigures(FrozenModel):
    """Figures on the full catalogue by AVG similarity: all test items are candidates, all true partners relevant."""

    queries: int = Field(description="number of queries: one for each item and relation with partners")
    pairs: int = Field(description="number of pairs of a query and a true partner")
    candidates: int = Field(description="number of candidates")
    systems: dict[str, CatalogueMeasures] = Field(
        description="means over queries, each with `value`, `low` and `high`"
    )
    comparisons: dict[str, Comparison] = Field(
        description="nDCG@10 of the tested network minus that of each rival"
    )
    relations: tuple[RelationMeasures, ...] = Field(description="figures of each relation with queries")
    popularity: tuple[PopularityBucket, ...] = Field(
        description="figures by popularity of the true partner, in up to three buckets with about equally many items"
    )


class RelationTypeFigures(FrozenModel):
    """Relation type of all systems; networks by AVG similarity with calibrated probabilities."""

    edges: int = Field(description="number of test edges")
    top_3: dict[str, Estimate] = Field(
        description="share of edges whose relation is among the 3 most likely; the interval is bootstrapped over items"
    )
    log_loss: dict[str, float] = Field(
        description="log-loss of the probability of the true relation, in nats"
    )
    comparisons: dict[str, Comparison] = Field(
        description="`top_3` of the tested network minus that of each rival"
    )


class ValidityFigures(FrozenModel):
    """Relation validity of all networks."""

    claims: int = Field(description="number of claims")
    accuracy: dict[str, Estimate] = Field(description="accuracy; the interval is bootstrapped over items")
    comparisons: dict[str, Comparison] = Field(
        description="accuracy of the tested network minus that of each rival"
    )


class Overlap(FrozenModel):
    """Mean Jaccard overlap of the ten best candidates of an item under two relations.

    `related` is the mean over the cases in which the item has partners under both relations (None if there are none),
    `all` the mean over all items and all pairs of relations.
    """

    related: float | None
    all: float


class SensitivityFigures(FrozenModel):
    """How much answers change with the relation, by AVG similarity on the full catalogue."""

    items: int = Field(description="number of test items compared")
    related: int = Field(
        description="number of cases: an item and a pair of relations under which it has partners"
    )
    partners: float | None = Field(
        description="mean Jaccard overlap of the true partners in these cases; null if there are none"
    )
    answers: dict[str, Overlap] = Field(description="mean Jaccard overlap of the ten best candidates")


class EfficiencyFigures(FrozenModel):
    """Size, time and memory of one network or system; the keys 1, 10 and 100 are numbers of relations."""

    parameters: int = Field(description="number of weights")
    ms_per_item: dict[int, float] = Field(
        description="time in milliseconds to turn the text and the picture file of one item into its vectors under as "
        "many relations"
    )
    ms_per_query: float = Field(
        description="time in milliseconds to rank all candidates for one query whose vectors are known"
    )
    bytes_per_item: dict[int, int] = Field(
        description="bytes of the different text and image vectors of one item in half precision"
    )


class EfficiencyTable(FrozenModel):
    """Cost of all networks and systems, measured during the evaluation."""

    machine: str = Field(description="GPU if there is one, CPU, and number of threads")
    items: int = Field(
        description="number of items in the sample; a system with many passes encodes fewer of them"
    )
    candidates: int = Field(description="number of candidates that a query ranks: all test items")
    systems: dict[str, EfficiencyFigures] = Field(description="costs of each network and system")


class Verdict(FrozenModel):
    """Answer to the question whether relation conditioning helps on these data."""

    effect: Literal["adds", "none", "costs"] | None = Field(
        description="whether conditioning adds to AVG Hit@5, makes no measurable difference or costs; null without "
        "--blind"
    )
    sentence: str = Field(description="the answer in words, with the best system that needs no network")
    warnings: tuple[str, ...] = Field(
        description="findings that should stop a reader from trusting the network"
    )


class EvaluationReport(FrozenModel):
    """Content of `report.json`, with one field per key; docs/artifacts.md documents the keys."""

    verdict: Verdict
    out_of_domain: bool = Field(
        False,
        description="whether the tested network was trained on other domains, so that the relations of this one are "
        "encoded from their descriptions alone",
    )
    data: DataCounts
    chance: ChanceFigures
    networks: dict[Role, NetworkFigures] = Field(
        description="figures of each network, means over its checkpoints; the tested network has the name of its "
        "training objective"
    )
    against_chance: dict[Similarity, Comparison] = Field(
        description="Hit@5 of the tested network minus chance; `p_holm` is adjusted for the number of similarities"
    )
    ratios: dict[Role, float] = Field(
        description="AVG Hit@5 of the tested network divided by AVG Hit@5 of the rival"
    )
    relations: tuple[RelationQuality, ...] = Field(
        description="figures of the tested network for each relation between different items"
    )
    tested: Role = Field(description="name of the tested network")
    checkpoints: dict[Role, tuple[CheckpointFigures, ...]] = Field(
        description="figures of each checkpoint of a network"
    )
    baselines: dict[str, str] = Field(description="what each baseline without a network does")
    retrieval: dict[Negatives, RetrievalFigures] = Field(
        description="Hit@5 by AVG similarity of all systems, for each kind of sampled queries"
    )
    catalogue: dict[Catalogue, CatalogueFigures] = Field(
        description="retrieval by AVG similarity from all test items, for each kind of query items; all true partners "
        "are relevant"
    )
    relation_type: RelationTypeFigures = Field(
        description="relation type of all systems; networks by AVG similarity with calibrated probabilities"
    )
    validity: ValidityFigures = Field(description="relation validity of all networks")
    sensitivity: SensitivityFigures | None = Field(
        description="overlap of the answers under two relations; null if there is only one relation"
    )
    attention_entropy: AttentionEntropy | None = Field(
        description="entropy of the attention of the tested network over the tokens of an item, divided by log(number "
        "of tokens), averaged over at most 128 items and all relations between items; 1 if it is uniform; null unless "
        "the objective is rcml"
    )
    efficiency: EfficiencyTable | None = Field(
        description="size, time and memory of the networks (their first checkpoints) and systems; null with "
        "--no-efficiency"
    )

    def save(self, folder: Path) -> None:
        """Write `report.json` into `folder`."""
        text = json.dumps(self.model_dump(mode="json"), indent=2) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
