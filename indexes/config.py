"""The options of `rcml index` and its verbs; loads nothing heavy, because `rcml --help` reads it."""

from pathlib import Path
from typing import Literal

from pydantic import ByteSize, Field

from model.config import Device, Precision, StageConfig, TowerEngine, VerbConfig

IndexKind = Literal["flat", "hnsw", "ivf-pq", "ivf-rabitq"]

Answered = Literal["auto", "none", "all", "TT", "II", "TI", "IT", "AVG"]


class BuildConfig(StageConfig):
    """Embed every item under every relation and write the index that `rcml serve` opens."""

    checkpoint: Path = Field(description="folder made by `rcml train`")
    prepared: Path = Field(description="folder made by `rcml prepare`, whose items are embedded")
    out: Path = Field(description="folder to write the index to")
    kind: IndexKind | Literal["auto"] = Field(
        "auto",
        description="flat: every vector is scanned, exact; hnsw: a graph, fastest; ivf-rabitq, ivf-pq: short codes, "
        "least memory; auto: flat up to 100,000 items, then hnsw, or what fits --max-memory",
    )
    min_recall: float = Field(
        0.95, ge=0, lt=1, description="least share of the ten nearest that a search must find; measured"
    )
    max_memory: ByteSize | None = Field(
        None, ge=1, description="most memory that all vectors may take in a server, as 16GiB; none: no limit"
    )
    answers: Answered = Field(
        "auto",
        description="similarity whose 100 best for every item are found now, exactly, and kept in a table, which "
        "takes 800 bytes an item and relation; auto: AVG up to 100,000 items",
    )
    token_store: bool = Field(
        False,
        description="keep the tokens of every item too, so that relations that nobody indexed can be asked about in "
        "words; takes some 70 KB an item with ViT-B/32",
    )
    discard_changes: bool = Field(
        False, description="replace an index even if items were changed since it was built; they are lost"
    )
    batch_size: int = Field(64, ge=1, le=4096, description="items encoded at a time")
    workers: int = Field(2, ge=1, le=64, description="threads that read pictures ahead of the network")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: Precision = Field(
        "auto", description="of the towers; auto is bf16 where that is faster: CUDA, many new CPUs"
    )
    engine: TowerEngine = Field(
        "torch", description="what runs the towers; openvino: rcml[openvino], CPU only"
    )


class VerifyConfig(VerbConfig):
    """Read an index through and check that nothing in it is missing, changed or at odds with the rest."""

    index: Path = Field(description="folder made by `rcml index build`")


class StatsConfig(VerbConfig):
    """Say what an index holds and what it takes."""

    index: Path = Field(description="folder made by `rcml index build`")


class SnapshotConfig(VerbConfig):
    """Copy an index as it is now; servers go on answering and changing it."""

    index: Path = Field(description="folder made by `rcml index build`")
    out: Path = Field(description="folder to write the copy to; must not be there")


class RestoreConfig(VerbConfig):
    """Have an index be again what a snapshot holds; a server that has it open goes over to it."""

    snapshot: Path = Field(description="folder made by `rcml index snapshot`")
    out: Path = Field(description="the index; its changes from before are lost")
    checkpoint: Path | None = Field(
        None, description="its checkpoint, where it does not lie as it did, seen from the index"
    )


class CompactConfig(VerbConfig):
    """Fold the changes to an index into a new generation; a server that has it open goes over to it."""

    index: Path = Field(description="folder made by `rcml index build`")
    checkpoint: Path | None = Field(
        None, description="its checkpoint, where that is not the one the index names"
    )
