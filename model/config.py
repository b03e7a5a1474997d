"""The options of the stages of `model`: at once the command line, the saved `config.json` and the parameters.

One frozen pydantic model a stage, every field described and bounded, no field unknown. Torch-free, because
`rcml --help` reads it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
Objective = Literal["rcml", "clip", "blind"]
Precision = Literal["auto", "fp32", "bf16"]
TowerEngine = Literal["torch", "openvino"]
Tuning = Literal["full", "lora", "frozen"]
Keep = Literal["best", "last"]
Tracker = Literal["wandb", "trackio"]
Behaviour = Literal["buy", "watch", "read", "play", "listen to", "use"]
TextField = Literal["title", "categories", "description"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class VerbConfig(BaseModel):
    """Options of a verb: frozen, and none unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StageConfig(VerbConfig):
    """The options of a stage, which makes an artifact."""

    out: Path


class ShopConfig(StageConfig):
    """Options of the sample shop (`model/sample_shop`), which `rcml demo` makes."""

    out: Path = Field(description="folder to write the shop to")
    items: int = Field(960, ge=42, le=12_096, description="number of items")
    shoppers: int = Field(3_200, ge=10, le=1_000_000, description="number of shoppers")
    seed: int = Field(0, ge=0, description="seed of every random choice")


class PrepareConfig(StageConfig):
    """Turn raw items and a log of who took what (or ready-made edges) into items, relations and edges."""

    items: Path = Field(description="items: .jsonl, .parquet or .csv with item_id, title, categories, image")
    out: Path = Field(description="folder to write the prepared data to")
    interactions: Path | None = Field(
        None, description="log: .jsonl, .parquet or .csv with user_id, item_id, optional rating and timestamp"
    )
    edges: Path | None = Field(
        None, description="ready-made edges instead of a log: item_a, item_b, relation"
    )
    relation_texts: Path | None = Field(
        None, description="texts of the ready-made edges: relation, description"
    )
    images: Path | None = Field(
        None, description="folder that picture paths start from (default: that of items)"
    )
    behaviour: Behaviour = Field("buy", description="what users do with items; worded into the relations")
    domain: str = Field(
        "",
        max_length=100,
        description="shop or trade that the relations are of, told beside each; may be left out",
    )
    text_fields: tuple[TextField, ...] = Field(
        ("title", "categories", "description"),
        min_length=1,
        description="what the text tower reads, in order",
    )
    text_only: bool = Field(
        True,
        description="keep items that name no picture: they are indexed and found by their words, but not trained on",
    )
    picture_size: int = Field(256, ge=32, le=2048, description="longest side of the kept pictures, in pixels")
    min_rating: float | None = Field(None, description="ignore interactions rated below this")
    min_user_items: int = Field(5, ge=2, description="ignore users with fewer items")
    max_user_items: int = Field(500, ge=2, description="of heavier users keep the latest items")
    min_item_users: int = Field(5, ge=1, description="ignore items with fewer users")
    clusters: int = Field(
        10, ge=2, le=100, description="number of user clusters, each of which is a relation"
    )
    min_support: int = Field(3, ge=1, description="users of a cluster who must have had both items of a pair")
    min_npmi: float = Field(0.0, ge=-1.0, le=1.0, description="least NPMI of a pair within its cluster")
    partners: int = Field(10, ge=1, le=1000, description="partners kept for an item and cluster, by NPMI")
    validation_share: Share = Field(0.1, description="share of the items held out for early stopping")
    test_share: Share = Field(0.2, description="share of the items held out for evaluation")
    seed: int = Field(0, ge=0, description="seed of the clustering and the split")

    @model_validator(mode="after")
    def _one_source(self) -> "PrepareConfig":
        if (self.interactions is None) == (self.edges is None):
            raise ValueError("give either --interactions or --edges (with --relation-texts), and not both")
        if (self.edges is None) != (self.relation_texts is None):
            raise ValueError(
                "--edges and --relation-texts go together: edges name relations, texts word them"
            )
        if self.validation_share + self.test_share >= 1.0:
            raise ValueError("validation_share + test_share must leave something to train on (sum below 1)")
        return self


class SmallBackbone(BaseModel):
    """Shape of the CLIP that is made from scratch when no pretrained one is named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(
        128, ge=16, le=1024, multiple_of=16, description="width of both towers and the joint space"
    )
    text_layers: int = Field(2, ge=1, le=24, description="layers of the text tower")
    image_layers: int = Field(3, ge=1, le=24, description="layers of the image tower")
    image_size: int = Field(64, ge=16, le=512, description="side of the pictures it sees, in pixels")
    patch_size: int = Field(16, ge=4, le=64, description="side of a patch, in pixels")
    vocabulary: int = Field(
        2048, ge=600, le=50_000, description="tokens of the tokenizer trained on the texts"
    )


class TrainConfig(StageConfig):
    """Train the relation-conditioned network (or one of its two rivals) on prepared data."""

    prepared: Path = Field(description="folder made by `rcml prepare`")
    out: Path = Field(description="folder to write the checkpoint to")
    objective: Objective = Field(
        "rcml",
        description="rcml; clip (self-pairs, cross-modal terms only); blind (all pairs, one constant relation text)",
    )
    backbone: str = Field(
        "small",
        description="'small' (from scratch), a local folder of a CLIP, SigLIP, SigLIP 2 or vision-text dual encoder, "
        "or a Hub name, which is downloaded",
    )
    small: SmallBackbone = Field(SmallBackbone(), description="shape of the small backbone")
    beta: Share = Field(0.6, description="weight of the summary token against the relation (eq. 5)")
    summary_scale: float = Field(
        1.0, ge=0.0, description="size of the summary bonus B; large values recover CLIP"
    )
    temperature: float = Field(0.1, gt=0.0, le=10.0, description="tau of eq. 2")
    intra_modal_weight: float = Field(0.5, ge=0.0, le=10.0, description="lambda of eq. 1")
    attention_gain: float | None = Field(
        None,
        gt=0.0,
        le=100.0,
        description="W_Q and W_K start as this x identity (default: 2 from scratch, 1 pretrained)",
    )
    attention_rate: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="rate of W_Q, W_K, W_V, W_o as a share of the peak (default: 0.1 from scratch, 1 pretrained)",
    )
    tune: Tuning = Field(
        "full",
        description="what learns: everything; low-rank adapters in the towers (needs rcml[lora]), merged in the end; "
        "or the attention alone, the towers frozen",
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="rank of the adapters of --tune lora")
    steps: int = Field(600, ge=1, le=10_000_000, description="optimizer steps at most")
    batch_size: int = Field(
        256, ge=2, le=65_536, description="pairs drawn for a batch, on all devices together"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="items encoded at a time on a device; the gradients stay those of the whole batch (default: all)",
    )
    precision: Precision = Field(
        "auto", description="of the arithmetic; the weights stay fp32. auto: bf16 on CUDA, fp32 on a CPU"
    )
    learning_rate: float | None = Field(
        None, gt=0.0, le=1.0, description="peak rate (default: 1e-3 from scratch, 5e-5 pretrained)"
    )
    weight_decay: float = Field(0.05, ge=0.0, le=10.0, description="decoupled weight decay of AdamW")
    warmup_share: Share = Field(0.15, description="share of the steps in which the rate rises")
    max_gradient_norm: float = Field(1.0, gt=0.0, description="gradients are clipped to this L2 norm")
    augment: bool = Field(True, description="shift, zoom and mirror the training pictures at random")
    picture_cache: bool = Field(
        True,
        description="decode every picture once, into the run's folder (3 bytes a pixel), rather than at every step",
    )
    workers: int = Field(2, ge=1, le=256, description="threads that make batches ahead of their step")
    validate_every: int = Field(100, ge=1, description="steps between validations")
    patience: int = Field(5, ge=1, description="validations without a better Hit@5 before stopping early")
    keep: Keep = Field(
        "best", description="weights of the checkpoint: of the best validation or the last step"
    )
    save_every: int = Field(100, ge=1, description="steps between saves of the whole state")
    resume: bool = Field(
        False, exclude=True, description="go on where an interrupted run of the same options was last saved"
    )
    track: tuple[Tracker, ...] = Field(
        (), description="log to these besides TensorBoard: wandb, trackio (installed separately)"
    )
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    seed: int = Field(0, ge=0, description="seed of weights, batches and augmentation")

    @model_validator(mode="after")
    def _pretrained(self) -> "TrainConfig":
        if self.tune != "full" and self.backbone == "small":
            raise ValueError(
                f"--tune {self.tune} is for a pretrained backbone: name one with --backbone, or use --tune full"
            )
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether a small CLIP is trained from random weights, not a pretrained backbone."""
        return self.backbone == "small"


class EvaluateConfig(StageConfig):
    """Measure a checkpoint on the test items: retrieval, relation type and relation validity."""

    checkpoint: Path = Field(description="folder made by `rcml train`")
    prepared: Path = Field(description="folder made by `rcml prepare`")
    out: Path = Field(description="folder to write report.json, report.md and the plots to")
    clip: Path | None = Field(None, description="checkpoint of the clip rival, to measure beside")
    blind: Path | None = Field(None, description="checkpoint of the blind rival, to measure beside")
    candidates: int = Field(21, ge=2, le=10_001, description="candidates a query: one true, the rest random")
    max_queries: int = Field(20_000, ge=1, description="queries at most, drawn at random when there are more")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    seed: int = Field(0, ge=0, description="seed of the negatives and the bootstrap")
