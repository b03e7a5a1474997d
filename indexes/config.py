"""The options of `rcml index`; loads nothing heavy, because `rcml --help` reads it."""

from pathlib import Path

from pydantic import Field

from model.config import Device, Precision, StageConfig, TowerEngine


class IndexConfig(StageConfig):
    """Embed every item under every relation and write the index that `rcml serve` opens."""

    checkpoint: Path = Field(description="folder made by `rcml train`")
    prepared: Path = Field(description="folder made by `rcml prepare`, whose items are embedded")
    out: Path = Field(description="folder to write the index to")
    batch_size: int = Field(64, ge=1, le=4096, description="items encoded at a time")
    device: Device = Field("auto", description="auto takes CUDA where there is one")
    precision: Precision = Field(
        "auto", description="of the towers; auto is bf16 where that is faster: CUDA, many new CPUs"
    )
    engine: TowerEngine = Field(
        "torch", description="what runs the towers; openvino: rcml[openvino], CPU only"
    )
