"""The options of `rcml index` and its verbs; loads nothing heavy, because `rcml --help` reads it."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, ByteSize, Field

from model.config import Device, Precision, StageConfig, TowerEngine, VerbConfig

IndexKind = Literal["flat", "hnsw", "ivf-pq", "ivf-rabitq"]

Answered = Literal["auto", "none", "all", "TT", "II", "TI", "IT", "AVG"]


def _postgres(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(
            "--journal must be the address of a Postgres database, as postgresql://user@host/database"
        )
    if parts.password or "password" in dict(parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(
            "--journal must not hold a password, since it is written into the index; leave it out and put it into "
            "PGPASSWORD or ~/.pgpass"
        )
    return url.replace("postgres:", "postgresql:", 1)


def _milvus(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https") and parts.hostname:
        if parts.username or parts.password:
            raise ValueError(
                "--vectors must not hold a user or a password, since it is written into the index; name a server of a "
                "private network that asks for none"
            )
        return uri
    if not parts.scheme and uri.endswith(".db"):
        return str(Path(uri).absolute())
    raise ValueError(
        "--vectors must be the address of a Milvus server, as http://host:19530, or a file of milvus-lite, as milvus.db"
    )


JournalUrl = Annotated[str, AfterValidator(_postgres)]

VectorsUri = Annotated[str, AfterValidator(_milvus)]


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
    vectors: VectorsUri | None = Field(
        None,
        description="Milvus server that keeps the vectors, as http://host:19530; none: files of this machine",
    )
    journal: JournalUrl | None = Field(
        None,
        description="Postgres database that keeps the changes, as postgresql://user@host/database, for several "
        "machines; none: a file of this one",
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
    vectors: VectorsUri | None = Field(
        None, description="Milvus server for its vectors; none: where those of the index lie now"
    )
    journal: JournalUrl | None = Field(
        None, description="Postgres database for its changes; none: where those of the index lie now"
    )


class CompactConfig(VerbConfig):
    """Fold the changes to an index into a new generation; a server that has it open goes over to it."""

    index: Path = Field(description="folder made by `rcml index build`")
    checkpoint: Path | None = Field(
        None, description="its checkpoint, where that is not the one the index names"
    )
