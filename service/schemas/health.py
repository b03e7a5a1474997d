"""Whether the service lives, and whether it can answer."""

from typing import Literal

from pydantic import BaseModel, Field


class Live(BaseModel):
    """The process runs."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """Questions can be answered."""

    status: Literal["ready"] = "ready"
    items: int = Field(ge=0, description="number of items in the catalogue")
    relations: int = Field(ge=1, description="number of relations")
    device: str = Field(description="where new texts are encoded: cpu, or cuda and its name")
    index: str = Field(description="digest of the index, SHA-256 in hexadecimal")
    checkpoint: str = Field(description="digest of the checkpoint it was made from, SHA-256 in hexadecimal")
