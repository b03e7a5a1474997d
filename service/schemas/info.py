"""What exactly is answering."""

from datetime import datetime

from pydantic import BaseModel, Field

from model.config import Precision, TowerEngine


class Versions(BaseModel):
    """What the process runs on; null where it did not load a library."""

    rcml: str = Field(description="this program")
    python: str = Field(description="the interpreter")
    fastapi: str | None = Field(description="FastAPI")
    faiss: str | None = Field(description="FAISS, which searches an index kept on this machine")
    torch: str | None = Field(description="PyTorch, which runs the network")
    transformers: str | None = Field(description="Transformers, which holds the network's towers")


class Info(BaseModel):
    """What exactly is answering."""

    versions: Versions
    index: str = Field(description="digest of the index, SHA-256 in hexadecimal")
    generation: str = Field(description="name of the index's generation, as generation-000001")
    checkpoint: str = Field(description="digest of the checkpoint, SHA-256 in hexadecimal")
    items: int = Field(ge=0, description="number of items in the catalogue")
    relations: int = Field(ge=1, description="number of relations")
    overlay_changes: int = Field(ge=0, description="changes not yet folded into a generation")
    device: str = Field(description="where new texts are encoded: cpu, or cuda and its name")
    precision: Precision = Field(description="of the towers, as the server was told")
    engine: TowerEngine = Field(description="what runs the towers")
    started: datetime = Field(description="when the server started, in UTC")
    uptime_s: float = Field(ge=0, description="since then, in seconds")
