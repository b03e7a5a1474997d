"""Schema of `GET /info`."""

from datetime import datetime

from pydantic import BaseModel, Field

from model.config import TowerEngine, TowerPrecision


class Versions(BaseModel):
    """Versions of the software that the server runs; null for a library that is not loaded."""

    rcml: str = Field(description="rcml itself")
    python: str = Field(description="the Python interpreter")
    fastapi: str | None = Field(description="FastAPI")
    faiss: str | None = Field(description="FAISS, which searches an index stored on this machine")
    torch: str | None = Field(description="PyTorch, which runs the network")
    transformers: str | None = Field(description="Transformers, which implements the network's towers")


class Info(BaseModel):
    """Software versions, artifacts and settings of the running server."""

    versions: Versions
    index: str = Field(description="SHA-256 digest of the index, in hexadecimal")
    generation: str = Field(description="name of the index generation, such as `generation-000001`")
    checkpoint: str = Field(description="SHA-256 digest of the checkpoint, in hexadecimal")
    items: int = Field(ge=0, description="number of items in the catalogue")
    relations: int = Field(ge=1, description="number of relations")
    overlay_changes: int = Field(ge=0, description="number of changes not yet compacted into a generation")
    device: str = Field(
        description="device that encodes new items: `cpu`, or `cuda` with the name of the GPU"
    )
    vectors: str = Field(
        description="where vectors are searched, such as `vectors of 10 relations on cuda:0 (1.2 of 60.1 GiB)`, or why "
        "not on a GPU"
    )
    precision: TowerPrecision = Field(description="configured precision of the towers")
    engine: TowerEngine = Field(description="configured runtime of the towers")
    towers: str = Field(
        description="precision and runtime that the towers have, such as `bf16 by torch`, and the reason for the choice"
    )
    started: datetime = Field(description="time at which the server started, in UTC")
    uptime_s: float = Field(ge=0, description="time since the server started, in seconds")
