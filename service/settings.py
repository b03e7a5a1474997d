"""The options of `rcml serve` and `rcml demo`; the only file that reads the environment (`RCML_*`).

Loads nothing heavy, because `rcml --help` reads it.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.config import Device, Precision, StageConfig, TowerEngine, VerbConfig

ENVIRONMENT_PREFIX = "RCML_"

LogLevel = Literal["critical", "error", "warning", "info", "debug"]
LogFormat = Literal["auto", "json", "text"]


def _split(given: object, field: ValidationInfo) -> object:
    """Split a list written with commas, or as JSON. An unreadable one is not repeated: it may be a key."""
    if not isinstance(given, str):
        return given
    if not given.lstrip().startswith("["):
        return [part.strip() for part in given.split(",") if part.strip()]
    try:
        parts = json.loads(given)
    except ValueError:
        parts = None
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        name = f"{ENVIRONMENT_PREFIX}{field.field_name}".upper()
        raise ValueError(f"{name} begins with [ but is no JSON list of texts. Separate its parts by commas")
    return parts


def _origin(given: str) -> str:
    if not re.fullmatch(r"https?://[^/*\s]+", given):
        raise ValueError(f"{given!r} is no origin. Give scheme and host alone, such as https://shop.example")
    return given


Listed = (NoDecode, BeforeValidator(_split))

Secrets = Annotated[tuple[SecretStr, ...], *Listed]
Origin = Annotated[str, AfterValidator(_origin)]


class ServeConfig(BaseSettings):
    """Answer questions about an index over HTTP. Options may also come from the environment, as RCML_PORT."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    index: Path = Field(description="folder made by `rcml index build`")
    checkpoint: Path | None = Field(
        None, description="its checkpoint, where that is not the one the index names"
    )
    report: Path | None = Field(
        None, description="its report, made by `rcml evaluate`, whose figures GET /relations tells"
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
    max_upload_bytes: int = Field(
        12 * 2**20,
        ge=1024,
        le=2**30,
        description="longer multipart bodies, which upload a picture, are refused",
    )
    max_bulk_bytes: int = Field(
        2**30, ge=1024, le=2**40, description="longer bulk uploads are refused; each of their lines is a body"
    )
    max_connections: int = Field(
        4_096, ge=1, le=100_000, description="connections at once; more, and the longest unfinished make room"
    )
    keep_alive_seconds: float = Field(
        5, gt=0, le=3600, description="an idle connection is kept; behind a balancer, longer than by that"
    )
    shutdown_seconds: int = Field(
        8, ge=1, le=3600, description="on SIGTERM, for what was accepted to be answered"
    )
    log_level: LogLevel = Field("info", description="least serious message to log; info logs every request")
    keys: Path | None = Field(None, description="file of API keys, as lines that `rcml key` prints")
    read_keys: Secrets = Field(
        (), description="API keys that may ask; give them as RCML_READ_KEYS, for an option is seen by all"
    )
    admin_keys: Secrets = Field(
        (), description="API keys that may also change things; give them as RCML_ADMIN_KEYS"
    )
    unguarded: bool = Field(
        False, description="listen beyond this machine without any key, as something else keeps strangers out"
    )
    rate_limit: float = Field(
        0.0,
        ge=0.0,
        le=1e6,
        description="requests a second for each key (address, without keys); 0: any number",
    )
    rate_burst: int = Field(20, ge=1, le=1_000_000, description="requests at once after a pause")
    deadline: float = Field(
        10.0,
        ge=0.1,
        le=3600.0,
        description="seconds until an answer must have begun; bulk uploads have longer",
    )
    cors_origins: Annotated[tuple[Origin, ...], *Listed] = Field(
        (), description="origins whose web pages may ask, as https://shop.example; none unless given"
    )
    allowed_hosts: Annotated[tuple[str, ...], *Listed] = Field(
        (), description="names with a dot that it may be asked by where it has no keys; addresses always may"
    )
    log_format: LogFormat = Field(
        "auto", description="of the log; auto is text on a terminal, JSON elsewhere"
    )
    trace: bool = Field(
        False, description="send OpenTelemetry spans to OTEL_EXPORTER_OTLP_ENDPOINT; needs rcml[otel]"
    )
    worker_patience: float = Field(
        30.0,
        ge=0.1,
        le=3600.0,
        description="seconds at one piece of work after which a worker counts as stuck",
    )


class KeyConfig(VerbConfig):
    """Make an API key: shown on stderr, its line for the file of `rcml serve --keys` on stdout."""

    name: str = Field(description="what logs and metrics call it, such as shop-frontend")
    role: Literal["read", "admin"] = Field("read", description="read may ask; admin may also change things")


class DemoConfig(StageConfig):
    """Make the sample shop, learn it, measure, index, and serve it: the whole road, reusing what is there."""

    out: Path = Field(Path("var/demo"), description="folder to write everything to")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 takes any free one")
    unguarded: bool = Field(False, description="listen beyond this machine without any key")
    items: int = Field(960, ge=300, le=12_096, description="items of the sample shop")
    shoppers: int = Field(3_200, ge=10, le=1_000_000, description="shoppers of the sample shop")
    steps: int = Field(100, ge=1, description="training steps at most, for each of the three networks")
    seed: int = Field(0, ge=0, description="seed of the shop, the split and the training")
    serve: bool = Field(True, description="go on to serve once all is made")
