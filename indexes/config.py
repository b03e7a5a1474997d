"""Options of the `rcml index` commands; this module imports nothing heavy because `rcml --help` loads it."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, ByteSize, Field

from model.config import Device, StageConfig, TowerEngine, TowerPrecision, VerbConfig

IndexKind = Literal["flat", "hnsw", "ivf-pq", "ivf-rabitq", "ivf-flat"]

FILE_KINDS: tuple[IndexKind, ...] = ("flat", "hnsw", "ivf-pq", "ivf-rabitq")
"""Kinds of an index whose vectors are in files."""

MILVUS_KINDS: tuple[IndexKind, ...] = ("flat", "ivf-flat")
"""Kinds of an index whose vectors are in Milvus."""

Answered = Literal["auto", "none", "all", "TT", "II", "TI", "IT", "AVG"]


def _postgres(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(
            "--journal must be the address of a Postgres database, for example postgresql://user@host/database"
        )
    if parts.password or "password" in dict(parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(
            "--journal must not contain a password, because the index stores the address. Leave the password out, and "
            "provide it through PGPASSWORD or ~/.pgpass"
        )
    return url.replace("postgres:", "postgresql:", 1)


def _milvus(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        if parts.username or parts.password:
            raise ValueError(
                "--vectors must not contain a user name or a password, because the index stores the address. Use a "
                "Milvus server that requires no login, on a private network"
            )
        return uri
    if not parts.scheme and uri.endswith(".db"):
        return str(Path(uri).absolute())
    raise ValueError(
        "--vectors must be the address of a Milvus server, for example http://host:19530, or a Milvus Lite file, for "
        "example milvus.db"
    )


JournalUrl = Annotated[str, AfterValidator(_postgres)]

VectorsUri = Annotated[str, AfterValidator(_milvus)]

GpuMemory = Annotated[float, Field(ge=0, le=1)]


class BuildConfig(StageConfig):
    """Embed every item under every relation and write the index that `rcml serve` opens."""

    checkpoint: Path = Field(description="folder written by `rcml train`")
    prepared: Path = Field(description="folder written by `rcml prepare`; its items are embedded")
    out: Path = Field(description="folder to write the index to")
    kind: IndexKind | Literal["auto"] = Field(
        "auto",
        description="flat: exact scan of all vectors; hnsw: graph, fastest; ivf-rabitq, ivf-pq: compressed codes, "
        "least memory; auto: flat up to 100,000 items, otherwise hnsw, or ivf-rabitq if these exceed --max-memory. "
        "With --vectors: flat or ivf-flat, which scans the nearest cells of vectors; auto: flat",
    )
    min_recall: float = Field(
        0.95, ge=0, lt=1, description="minimum recall@10 of a search, measured against an exact scan"
    )
    max_memory: ByteSize | None = Field(
        None,
        ge=1,
        description="maximum memory that a server may use for all vectors, for example 16GiB; none: three quarters of "
        "the memory of this machine or container",
    )
    answers: Answered = Field(
        "auto",
        description="similarity for which the 100 best results for every item are precomputed; takes 800 bytes per "
        "item and relation; exact up to 100,000 items, then found by the ANN index, with exact scores; auto: AVG if "
        "there are at most 100,000 items, or 1,000,000 with an ANN index in files, otherwise none",
    )
    token_store: bool = Field(
        False,
        description="also store the tokens of every item, which free-text relations need; about 70 KB per item with "
        "ViT-B/32",
    )
    vectors: VectorsUri | None = Field(
        None,
        description="Milvus server that stores the vectors, for example http://host:19530; none: local files",
    )
    journal: JournalUrl | None = Field(
        None,
        description="Postgres database that stores the changes, for example postgresql://user@host/database, and "
        "shares them between machines; none: a local file",
    )
    discard_changes: bool = Field(
        False, description="replace an index even if it was changed after it was built; the changes are lost"
    )
    batch_size: int = Field(64, ge=1, le=4096, description="number of items encoded at a time")
    workers: int | None = Field(
        None,
        ge=1,
        le=256,
        description="number of threads or processes that decode pictures; none: all cores but one with CUDA, otherwise "
        "at most 2",
    )
    decoded_pictures: Path | None = Field(
        None,
        description="folder of decoded pictures that `rcml train` and `rcml index build` share (3 bytes per pixel); "
        "none: they are decoded in memory",
    )
    device: Device = Field("auto", description="auto: CUDA if it is available, otherwise the CPU")
    gpu_memory: GpuMemory = Field(
        0.8,
        description="share of the free GPU memory that vectors may use to precompute answers; 0: use the CPU",
    )
    precision: TowerPrecision = Field(
        "auto",
        description="precision of the towers; auto: bf16 if it is faster (CUDA, many recent CPUs), otherwise int8 on a "
        "CPU if it is exact enough, otherwise fp32",
    )
    engine: TowerEngine = Field(
        "auto",
        description="runtime of the towers; openvino: requires rcml[openvino], CPU only; cuda-graphs: torch, with "
        "recorded calls for few items, GPU only; auto: on a CPU OpenVINO if it is installed and can run the towers, "
        "otherwise torch; on a GPU cuda-graphs",
    )

    def moved(self, vectors: str | None, journal: str | None) -> "BuildConfig":
        """Return the options after a move of vectors and changes; `kind` becomes auto if it does not exist there."""
        kinds = FILE_KINDS if vectors is None else MILVUS_KINDS
        kind = self.kind if self.kind in kinds else "auto"
        return self.model_copy(update={"vectors": vectors, "journal": journal, "kind": kind})


class VerifyConfig(VerbConfig):
    """Read an entire index and check that it is complete, unmodified and consistent."""

    index: Path = Field(description="folder written by `rcml index build`")


class StatsConfig(VerbConfig):
    """Print the contents and the size of an index."""

    index: Path = Field(description="folder written by `rcml index build`")


class AcceptLossConfig(VerbConfig):
    """Continue without acknowledged changes that an index has lost; the index does not open until then."""

    index: Path = Field(description="folder written by `rcml index build`")


class SnapshotConfig(VerbConfig):
    """Back up an index while servers continue to read and change it."""

    index: Path = Field(description="folder written by `rcml index build`")
    out: Path = Field(description="folder to write the backup to; must not exist, or must be empty")


class RestoreConfig(VerbConfig):
    """Restore an index from a backup; a server that has the index open switches to the restored state."""

    snapshot: Path = Field(description="folder written by `rcml index snapshot`")
    out: Path = Field(description="index folder to restore; its existing changes are lost")
    checkpoint: Path | None = Field(
        None, description="checkpoint of the index, if its path relative to the index has changed"
    )
    vectors: VectorsUri | None = Field(
        None, description="Milvus server for the vectors; none: the current location of the index's vectors"
    )
    journal: JournalUrl | None = Field(
        None,
        description="Postgres database for the changes; none: the current location of the index's changes",
    )


class CompactConfig(VerbConfig):
    """Compact the changes to an index into a new generation; a server that has the index open switches to it."""

    index: Path = Field(description="folder written by `rcml index build`")
    checkpoint: Path | None = Field(
        None, description="checkpoint to use instead of the one that the index names"
    )
