"""Options of the stages of `model`: each class defines the command line and the saved `config.json` of one stage.

The classes are frozen and reject unknown fields. Every field has a description and bounds. This module imports nothing
heavy because `rcml --help` loads it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Device = Literal["auto", "cpu", "cuda"]
Objective = Literal["rcml", "clip", "blind", "siglip", "unicl", "declip"]
Conditioning = Literal["paper", "centred", "centred+bias"]
Precision = Literal["auto", "fp32", "bf16"]
Compile = Literal["auto", "on", "off"]
TowerPrecision = Literal["auto", "fp32", "bf16", "int8"]
TowerEngine = Literal["auto", "torch", "cuda-graphs", "openvino"]
Tuning = Literal["full", "lora", "frozen"]
Keep = Literal["best", "last"]
Study = Literal["ablations", "objectives", "beta", "temperature", "lambda", "batch-size"]
Tracker = Literal["wandb", "trackio"]
Behaviour = Literal["buy", "watch", "read", "play", "listen to", "use"]
TextField = Literal["title", "categories", "description"]

Share = Annotated[float, Field(ge=0.0, le=1.0)]

UNCONDITIONED: frozenset[Objective] = frozenset({"clip", "siglip", "unicl", "declip"})
"""Objectives of networks that read only the summary token of an item, whatever the relation, as CLIP does."""


def _paths(given: object) -> object:
    """Return one path as a tuple; numbers on the command line are names."""
    many = given if isinstance(given, list | tuple) else (given,)
    return tuple(str(one) if isinstance(one, int) else one for one in many)


Paths = Annotated[tuple[Path, ...], BeforeValidator(_paths)]
"""One path or several: the option is repeated, or the paths are separated by commas."""


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
    dim: int | None = Field(
        None, ge=16, le=8192, description="length of every vector; none: the width of the text tower"
    )
    seed: int = Field(0, ge=0, description="random seed of the projections")


PRETRAINED_DEFAULTS = {"conditioning": "centred+bias"}
"""Defaults of `TrainConfig` with a pretrained backbone. A network from scratch learns by itself to tell descriptions
apart, and does so better."""

FROZEN_DEFAULTS = {"temperature": 0.2, "learning_rate": 1e-4, "steps": 200, "validate_every": 10}
"""Defaults of `TrainConfig` for `--tune frozen`: few weights are trained, and they fit a small log early."""


class TrainingOptions(StageConfig):
    """Options of a training that a study of many trainings shares with `rcml train`."""

    prepared: Paths = Field(
        min_length=1,
        description="folders written by `rcml prepare`; several (comma-separated, or the option repeated) are domains "
        "of one training",
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
        "over the relations, which makes similar descriptions distinct; centred+bias: also with a relation bias, which "
        "learns whether an item belongs to the relation at all; default with a pretrained backbone: centred+bias",
    )
    text_share: Share | None = Field(
        None, description="weight of the text in the average view; none: chosen on validation (paper: 0.5)"
    )
    normalise_tokens: bool | None = Field(
        None,
        description="centre tokens, let every field of a text count equally, and attend to tokens by their direction "
        "alone; none: only with towers of `rcml backbone make`, unless --conditioning paper",
    )
    temperature: float = Field(
        0.1, gt=0.0, le=10.0, description="temperature tau of the loss (eq. 2); with --tune frozen: 0.2"
    )
    intra_modal_weight: float = Field(
        0.5, ge=0.0, le=10.0, description="weight lambda of the intra-modal terms of the loss (eq. 1)"
    )
    attention_gain: float | None = Field(
        None,
        gt=0.0,
        le=100.0,
        description="W_Q and W_K start as this factor times the identity; none: with --conditioning paper 2 from "
        "scratch and 1 if pretrained, otherwise 1, with a scale of the logits derived from the data",
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
        "merged at the end (requires rcml[lora]); frozen: train the attention and the projections into the joint "
        "space, on tokens that the towers encode once",
    )
    lora_rank: int = Field(16, ge=1, le=1024, description="rank of the adapters for --tune lora")
    steps: int = Field(
        600, ge=1, le=10_000_000, description="maximum number of optimizer steps; with --tune frozen: 200"
    )
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
    compile: Compile = Field(
        "auto",
        description="compile the towers and the attention with torch.compile, which takes half a minute at the start "
        "and speeds up steps on a GPU; auto: on CUDA, from 1,000 steps",
    )
    gradient_checkpointing: bool = Field(
        False,
        description="compute the activations of the towers again in the backward pass instead of storing them, which "
        "saves memory and takes longer",
    )
    learning_rate: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="peak learning rate; none: 1e-3 from scratch, 5e-5 if pretrained, 1e-4 with --tune frozen",
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
        True, description="decode each picture only once, into a folder on disk (3 bytes per pixel)"
    )
    decoded_pictures: Path | None = Field(
        None,
        description="folder of decoded pictures that `rcml train` and `rcml index build` share; none: the folder of "
        "the run, which is removed at the end",
    )
    workers: int = Field(2, ge=1, le=256, description="number of threads that prepare batches in advance")
    validate_every: int = Field(
        100, ge=1, description="number of steps between validations; with --tune frozen: 10"
    )
    patience: int = Field(5, ge=1, description="stop after this many validations without a better Hit@5")
    keep: Keep = Field(
        "best",
        description="weights to write to the checkpoint; best: from the best validation; last: from the last step",
    )
    save_every: int = Field(100, ge=1, description="number of steps between saves of the training state")
    device: Device = Field("auto", description="auto: CUDA if it is available, otherwise the CPU")
    seed: int = Field(0, ge=0, description="random seed of the weights, the batches and the augmentation")

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_pretrained_towers(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("backbone", "small") == "small":
            return given
        frozen = FROZEN_DEFAULTS if given.get("tune") == "frozen" else {}
        return {**PRETRAINED_DEFAULTS, **frozen, **given}

    @model_validator(mode="after")
    def _pretrained(self) -> Self:
        if self.tune != "full" and self.backbone == "small":
            raise ValueError(
                f"--tune {self.tune} requires a pretrained backbone. Give one with --backbone, or use --tune full"
            )
        return self

    @property
    def from_scratch(self) -> bool:
        """Whether a small CLIP is trained from scratch, without a pretrained backbone."""
        return self.backbone == "small"


class TrainConfig(TrainingOptions):
    """Train the relation-conditioned network, or a network to compare it with, on prepared data."""

    out: Path = Field(description="folder to write the checkpoint to")
    objective: Objective = Field(
        "rcml",
        description="rcml: relation-conditioned network; clip: CLIP baseline (self-pairs, cross-modal terms only); "
        "blind: unconditioned ablation (the same pairs, one constant relation text); siglip, unicl, declip: the "
        "network of clip with the loss of these papers",
    )
    inter_edges: bool = Field(
        True,
        description="train on the pairs of different items; without them, only self-pairs are positive, and all other "
        "items are negatives",
    )
    resume: bool = Field(
        False,
        exclude=True,
        description="continue an interrupted run from its last save; the other options must be unchanged",
    )
    track: tuple[Tracker, ...] = Field(
        (),
        description="trackers to log to in addition to TensorBoard: wandb, trackio; install them separately",
    )

    @model_validator(mode="after")
    def _two_views(self) -> Self:
        if self.objective == "declip" and not self.augment and self.tune != "frozen":
            raise ValueError(
                "--objective declip compares two augmented views of each picture. Omit --no-augment, or use --tune "
                "frozen, whose views are made from the encoded tokens"
            )
        return self


class AblateConfig(TrainingOptions):
    """Train variants of one training, each with one change, and compare them on the same test items."""

    prepared: Paths = Field(
        min_length=1, description="folder written by `rcml prepare`; a study compares on one domain"
    )
    out: Path = Field(
        description="folder to write ablation.json, ablation.md, ablation.png and the checkpoints to"
    )
    study: Study = Field(
        "ablations",
        description="ablations: one part of the method removed at a time; objectives: the values of --objective; "
        "otherwise the values of one option: beta, temperature, lambda (--intra-modal-weight) or batch-size",
    )
    seeds: int = Field(
        1, ge=1, le=100, description="number of trainings per variant, with the seeds --seed, --seed + 1, ..."
    )

    @model_validator(mode="after")
    def _one_domain(self) -> Self:
        if len(self.prepared) > 1:
            raise ValueError(
                "--prepared has several folders. A study compares on one domain: give one folder"
            )
        return self


class EvaluateConfig(StageConfig):
    """Evaluate a checkpoint on the test items: retrieval, relation type and relation validity."""

    checkpoint: Paths = Field(
        min_length=1,
        description="folders written by `rcml train`; several (comma-separated, or the option repeated) differ in the "
        "seed, and the report shows their mean",
    )
    prepared: Path = Field(
        description="folder written by `rcml prepare`, on which the checkpoints were trained, or of another domain"
    )
    out: Path = Field(description="folder to write report.json, report.md, report.html and the plots to")
    clip: Paths = Field((), description="checkpoints trained with --objective clip, to compare with")
    blind: Paths = Field((), description="checkpoints trained with --objective blind, to compare with")
    rivals: Paths = Field(
        (),
        description="checkpoints trained with other objectives than the tested one, such as siglip, unicl or declip, "
        "to compare with; those of one objective are averaged",
    )
    against: Paths = Field((), description="checkpoints of any other training, to compare with")
    systems: tuple[str, ...] = Field(
        (),
        description="pretrained systems to compare with, each as family:folder, such as sentence:FOLDER or "
        "clip:openai/clip-vit-base-patch32 (docs/evaluation-systems.md lists them)",
    )
    candidates: int = Field(
        21, ge=2, le=10_001, description="number of candidates per query: one true partner, the others random"
    )
    max_queries: int = Field(
        20_000, ge=1, description="maximum number of queries of each kind; a random sample if there are more"
    )
    efficiency: bool = Field(
        True, description="also measure the size, the time and the memory of each network and system"
    )
    device: Device = Field("auto", description="auto: CUDA if it is available, otherwise the CPU")
    seed: int = Field(0, ge=0, description="random seed of the queries, the claims and the bootstrap")
