"""Schemas of the liveness and readiness checks."""

from typing import Literal

from pydantic import BaseModel, Field


class Live(BaseModel):
    """Liveness of the process."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """Readiness of the service to answer requests."""

    status: Literal["ready"] = "ready"
    items: int = Field(ge=0, description="number of items in the catalogue")
    relations: int = Field(ge=1, description="number of relations")
    device: str = Field(
        description="device that encodes new items: `cpu`, or `cuda` with the name of the GPU"
    )
    index: str = Field(description="SHA-256 digest of the index, in hexadecimal")
    checkpoint: str = Field(
        description="SHA-256 digest of the checkpoint that the index was built from, in hexadecimal"
    )
    warnings: list[str] = Field(
        default_factory=list,
        description="faults that affect only some requests, such as damaged pictures; empty if there are none",
    )


class ReadyShops(BaseModel):
    """Readiness of a server of several shops."""

    status: Literal["ready"] = "ready"
    shops: list[str] = Field(min_length=1, description="names of the shops that are served")
    failed: list[str] = Field(
        description="names of the shops that could not be opened; the log has the reasons"
    )
