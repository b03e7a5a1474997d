"""The options of `rcml serve` and `rcml demo`; the only file that reads the environment (`RCML_*`).

Loads nothing heavy, because `rcml --help` reads it.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from model.config import Device, Precision, StageConfig, TowerEngine

ENVIRONMENT_PREFIX = "RCML_"

LogLevel = Literal["critical", "error", "warning", "info", "debug"]


class ServeConfig(BaseSettings):
    """Answer questions about an index over HTTP. Options may also come from the environment, as RCML_PORT."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    index: Path = Field(description="folder made by `rcml index build`")
    checkpoint: Path | None = Field(
        None, description="its checkpoint, where that is not the one the index names"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 is every network")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 takes any free one")
    device: Device = Field(
        "auto", description="where new texts are encoded; auto takes CUDA where there is one"
    )
    precision: Precision = Field(
        "auto", description="of the towers; auto is bf16 where that is faster: CUDA, many new CPUs"
    )
    engine: TowerEngine = Field(
        "torch", description="what runs the towers; openvino: rcml[openvino], CPU only"
    )
    compact_at: int = Field(
        10_000, ge=0, description="changes to the index that are folded into a new generation; 0: never"
    )
    max_body_bytes: int = Field(2**20, ge=1024, le=2**30, description="longer request bodies are refused")
    log_level: LogLevel = Field("info", description="least serious message to log; info logs every request")


class DemoConfig(StageConfig):
    """Make the sample shop, learn it, measure, index, and serve it: the whole road, reusing what is there."""

    out: Path = Field(Path("var/demo"), description="folder to write everything to")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 takes any free one")
    items: int = Field(960, ge=300, le=12_096, description="items of the sample shop")
    shoppers: int = Field(3_200, ge=10, le=1_000_000, description="shoppers of the sample shop")
    steps: int = Field(100, ge=1, description="training steps at most, for each of the three networks")
    seed: int = Field(0, ge=0, description="seed of the shop, the split and the training")
    serve: bool = Field(True, description="go on to serve once all is made")
