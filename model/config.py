"""Options of the stages of `model`: each class defines the command line and the saved `config.json` of one stage.

The classes are frozen and reject unknown fields. Every field has a description and bounds. This module imports nothing
heavy because `rcml --help` loads it.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
Objective = Literal["rcml", "clip", "blind"]
Conditioning = Literal["paper", "centred"]
Precision = Literal["auto", "fp32", "bf16"]
TowerEngine = Literal["torch", "openvino"]
Tuning = Literal["full", "lora", "frozen"]
Keep = Literal["best", "last"]
Tracker = Literal["wandb", "trackio"]
Behaviour = Literal["buy", "watch", "read", "play", "listen to", "use"]
TextField = Literal["title", "categories", "description"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class VerbConfig(BaseModel):
    """Base class of the options of a command; it is frozen and rejects unknown options."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StageConfig(VerbConfig):
    """Base class of the options of a stage, which writes an artifact to `out`."""

    out: Path


class ShopConfig(StageConfig):
    """Options of the sample shop (`model/sample_shop`), which `rcml demo` generates."""

    out: Path = Field(description="folder to write the shop to")
    items: int = Field(960, ge=42, le=12_096, description="number of items")
    shoppers: int = Field(3_200, ge=10, le=1_000_000, description="number of shoppers")
    seed: int = Field(0, ge=0, description="random seed")


class PrepareConfig(StageConfig):
    """Turn raw items and an interaction log (or your own edges) into items, relations and edges."""

    items: Path = Field(
        description="items: .jsonl, .parquet or .csv with item_id, title, categories and optional image, description"
    )
    out: Path = Field(description="folder to write the prepared data to")
    interactions: Path | None = Field(
        None,
        description="interaction log: .jsonl, .parquet or .csv with user_id, item_id and optional rating, timestamp",
    )
    edges: Path | None = Field(
        None,
        description="your own edges instead of a log: .jsonl, .parquet or .csv with item_a, item_b, relation",
    )
    relation_texts: Path | None = Field(
        None,
        description="descriptions of the relations in --edges: .jsonl, .parquet or .csv with relation, description",
    )
    images: Path | None = Field(
        None, description="folder that the picture paths are relative to; none: the folder of the items file"
    )
    behaviour: Behaviour = Field(
        "buy", description="what users do with the items; sets the wording of the relation descriptions"
    )
    domain: str = Field(
        "",
        max_length=100,
        description="name of the shop or trade, stored with every relation and shown to users; may be empty",
    )
    text_fields: tuple[TextField, ...] = Field(
        ("title", "categories", "description"),
        min_length=1,
        description="item fields that the text tower reads, in this order",
    )
    text_only: bool = Field(
        True,
        description="keep items without a picture: they are indexed and found by their text, but not trained on",
    )
    picture_size: int = Field(
        256, ge=32, le=2048, description="maximum side length of the stored pictures, in pixels"
    )
    min_rating: float | None = Field(
        None, description="ignore interactions with a lower rating; none: no minimum"
    )
    min_user_items: int = Field(5, ge=2, description="ignore users with fewer items")
    max_user_items: int = Field(
        500, ge=2, description="maximum number of items per user; only the latest are kept"
    )
    min_item_users: int = Field(5, ge=1, description="ignore items with fewer users")
    clusters: int = Field(
        10, ge=2, le=100, description="number of user clusters; each cluster becomes a relation"
    )
    min_support: int = Field(
        3, ge=1, description="minimum number of users in a cluster who have both items of a pair"
    )
    min_npmi: float = Field(
        0.0,
        ge=-1.0,
        le=1.0,
        description="minimum NPMI (normalised pointwise mutual information) of a pair in its cluster; 0: chance level",
    )
    partners: int = Field(
        10,
        ge=1,
        le=1000,
        description="number of best partners (by NPMI) of an item in a cluster; a pair is kept if one of its "
        "items is a best partner of the other",
    )
    validation_share: Share = Field(
        0.1, description="share of the items held out for validation during training"
    )
    test_share: Share = Field(0.2, description="share of the items held out for `rcml evaluate`")
    seed: int = Field(0, ge=0, description="random seed of the clustering and the data split")

    @model_validator(mode="after")
    def _one_source(self) -> "PrepareConfig":
        if (self.interactions is None) == (self.edges is None):
            raise ValueError(
                "exactly one of --interactions and --edges is required. Give a log, or edges with --relation-texts"
            )
        if (self.edges is None) != (self.relation_texts is None):
            raise ValueError(
                "--edges and --relation-texts must be given together. The texts describe the relations of the edges"
            )
        if self.validation_share + self.test_share >= 1.0:
            raise ValueError(
                "--validation-share and --test-share must sum to less than 1, to leave items for training"
            )
        return self


class SmallBackbone(BaseModel):
    """Shape of the CLIP that is trained from scratch if no pretrained backbone is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(
        128,
        ge=16,
        le=1024,
        multiple_of=16,
        description="width of both towers and of the joint embedding space",
    )
    text_layers: int = Field(2, ge=1, le=24, description="number of layers of the text tower")
    image_layers: int = Field(3, ge=1, le=24, description="number of layers of the image tower")
    image_size: int = Field(64, ge=16, le=512, description="side length of the input pictures, in pixels")
    patch_size: int = Field(16, ge=4, le=64, description="side length of a patch, in pixels")
    vocabulary: int = Field(
        2048, ge=600, le=50_000, description="vocabulary size of the tokenizer, which is trained on the texts"
    )


class MakeBackboneConfig(StageConfig):
    """Make a backbone from a pretrained text tower and a pretrained image tower."""

    text: str = Field(
        description="text tower, such as BERT or a sentence-transformers model: a local folder, or a Hub name, which "
        "is downloaded"
    )
    image: str = Field(
        description="image tower, such as ViT, DINOv2 or EfficientNet: a local folder, or a Hub name, which is "
        "downloaded"
    )
    out: Path = Field(description="folder to write the backbone to; it must not exist")
    prepared: Path | None = Field(
        None,
        description="folder written by `rcml prepare`; the projections then remove what the tokens of its training "
        "items have in common; none: nothing is removed",
    )
    dim: int | None = Field(
        None, ge=16, le=8192, description="length of every vector; none: the width of the text tower"
    )
    seed: int = Field(0, ge=0, description="random seed of the projections")


class TrainConfig(StageConfig):
    """Train the relation-conditioned network, or one of its two baselines, on prepared data."""

    prepared: Path = Field(description="folder written by `rcml prepare`")
    out: Path = Field(description="folder to write the checkpoint to")
    objective: Objective = Field(
        "rcml",
        description="rcml: relation-conditioned network; clip: CLIP baseline (self-pairs, cross-modal terms only); "
        "blind: unconditioned ablation (the same pairs, one constant relation text)",
    )
    backbone: str = Field(
        "small",
        description="small: CLIP trained from scratch; otherwise a pretrained CLIP, SigLIP, SigLIP 2 or vision-text "
        "dual encoder (see `rcml backbone make`): a local folder, or a Hub name, which is downloaded",
    )
    small: SmallBackbone = Field(SmallBackbone(), description="shape of the small backbone")
    beta: Share = Field(0.6, description="weight of the summary token relative to the relation (eq. 5)")
    summary_scale: float = Field(
        1.0, ge=0.0, description="size of the summary bonus B (eq. 5); large values reproduce CLIP"
    )
    conditioning: Conditioning = Field(
        "paper",
        description="paper: relations attend by their encoded description h_E (eq. 6); centred: by h_E minus its mean "
        "over the relations, which makes similar descriptions distinct",
    )
    temperature: float = Field(0.1, gt=0.0, le=10.0, description="temperature tau of the loss (eq. 2)")
    intra_modal_weight: float = Field(
        0.5, ge=0.0, le=10.0, description="weight lambda of the intra-modal terms of the loss (eq. 1)"
    )
    attention_gain: float | None = Field(
        None,
        gt=0.0,
        le=100.0,
        description="W_Q and W_K start as this factor times the identity; none: derived from the data, so that "
        "relations attend differently from the start (with --conditioning paper: 2 from scratch, 1 if pretrained)",
    )
    attention_rate: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="learning rate of W_Q, W_K, W_V and W_o, as a share of --learning-rate; none: 0.1 from scratch, "
        "1 if pretrained",
    )
    tune: Tuning = Field(
        "full",
        description="full: train all weights; lora: train the attention and low-rank adapters in the towers, which are "
        "merged at the end (requires rcml[lora]); frozen: train only the attention",
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="rank of the adapters for --tune lora")
    steps: int = Field(600, ge=1, le=10_000_000, description="maximum number of optimizer steps")
    batch_size: int = Field(
        256, ge=2, le=65_536, description="number of pairs per batch, over all devices together"
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="maximum number of items that a device encodes at a time, which saves memory without changing the "
        "gradients; none: all items",
    )
    precision: Precision = Field(
        "auto",
        description="precision of the computation, while the weights stay fp32; auto: bf16 if the GPU supports it, "
        "otherwise fp32",
    )
    learning_rate: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="peak learning rate; none: 1e-3 from scratch, 5e-5 if pretrained",
    )
    weight_decay: float = Field(0.05, ge=0.0, le=10.0, description="decoupled weight decay of AdamW")
    warmup_share: Share = Field(
        0.15, description="share of the steps in which the learning rate rises to its peak"
    )
    max_gradient_norm: float = Field(
        1.0, gt=0.0, description="maximum L2 norm of the gradients; larger gradients are clipped"
    )
    augment: bool = Field(True, description="randomly shift, zoom and mirror the training pictures")
    picture_cache: bool = Field(
        True,
        description="decode every picture only once, into the folder of the run (3 bytes per pixel)",
    )
    workers: int = Field(2, ge=1, le=256, description="number of threads that prepare batches in advance")
    validate_every: int = Field(100, ge=1, description="number of steps between validations")
    patience: int = Field(5, ge=1, description="stop after this many validations without a better Hit@5")
    keep: Keep = Field(
        "best",
        description="weights to write to the checkpoint; best: from the best validation; last: from the last step",
    )
    save_every: int = Field(100, ge=1, description="number of steps between saves of the training state")
    resume: bool = Field(
        False,
        exclude=True,
        description="continue an interrupted run from its last save; the other options must be unchanged",
    )
    track: tuple[Tracker, ...] = Field(
        (),
        description="trackers to log to in addition to TensorBoard: wandb, trackio; install them separately",
    )
    device: Device = Field("auto", description="auto: CUDA if it is available, otherwise the CPU")
    seed: int = Field(0, ge=0, description="random seed of the weights, the batches and the augmentation")

    @model_validator(mode="after")
    def _pretrained(self) -> "TrainConfig":
        if self.tune != "full" and self.backbone == "small":
            raise ValueError(
                f"--tune {self.tune} requires a pretrained backbone. Give one with --backbone, or use --tune full"
            )
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether a small CLIP is trained from scratch, without a pretrained backbone."""
        return self.backbone == "small"


class EvaluateConfig(StageConfig):
    """Evaluate a checkpoint on the test items: retrieval, relation type and relation validity."""

    checkpoint: Path = Field(description="folder written by `rcml train`")
    prepared: Path = Field(
        description="folder written by `rcml prepare`, on which the checkpoint was trained"
    )
    out: Path = Field(description="folder to write report.json, report.md and the plots to")
    clip: Path | None = Field(None, description="checkpoint trained with --objective clip, to compare with")
    blind: Path | None = Field(None, description="checkpoint trained with --objective blind, to compare with")
    candidates: int = Field(
        21, ge=2, le=10_001, description="number of candidates per query: one true partner, the others random"
    )
    max_queries: int = Field(
        20_000, ge=1, description="maximum number of queries; a random sample if there are more"
    )
    device: Device = Field("auto", description="auto: CUDA if it is available, otherwise the CPU")
    seed: int = Field(0, ge=0, description="random seed of the queries, the claims and the bootstrap")
