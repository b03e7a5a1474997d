"""Options of `rcml serve`, `rcml demo` and `rcml key`; the only module that reads the environment (`RCML_*`).

This module imports no heavy packages, because `rcml --help` imports it.
"""

import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from model.config import Device, StageConfig, TowerEngine, TowerPrecision, VerbConfig

ENVIRONMENT_PREFIX = "RCML_"

LogLevel = Literal["critical", "error", "warning", "info", "debug"]
LogFormat = Literal["auto", "json", "text"]


def _split(given: object, field: ValidationInfo) -> object:
    """Split a list given as comma-separated text or as JSON; errors omit the text, because it may be a key."""
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
        raise ValueError(
            f"{name} starts with [ but is not a JSON list of strings. Separate the values with commas"
        )
    return parts


def _origin(given: str) -> str:
    if not re.fullmatch(r"https?://[^/*\s]+", given):
        raise ValueError(
            f"{given!r} is not an origin. Give only a scheme and a host, such as https://shop.example"
        )
    return given


def _root_path(given: str) -> str:
    prefix = given.rstrip("/")
    if prefix and not re.fullmatch(r"(/[\w.~-]+)+", prefix, re.ASCII):
        raise ValueError(
            f"{given!r} is not a path prefix. Give a path without host and query, such as /search or /shop/search"
        )
    return prefix


def _network(given: str) -> str:
    try:
        return str(ip_network(given))
    except ValueError as error:
        raise ValueError(
            f"{given!r} is not an IP address or a network: {error}. Give the address of a proxy, such as 10.0.0.7, or "
            "a network, such as 10.0.0.0/24"
        ) from None


Listed = (NoDecode, BeforeValidator(_split))

Secrets = Annotated[tuple[SecretStr, ...], *Listed]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]


class ServeConfig(BaseSettings):
    """Serve an index over HTTP. Every option can also be set in the environment: --port as RCML_PORT."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    index: Path = Field(description="folder written by `rcml index build`")
    shops: bool = Field(
        False,
        description="--index is a folder of indexes: serve each subfolder NAME as a shop of its own, under /shops/NAME",
    )
    checkpoint: Path | None = Field(
        None, description="checkpoint of the index, if it has moved since the index was built"
    )
    report: Path | None = Field(
        None,
        description="report of the checkpoint, written by `rcml evaluate`; GET /relations returns its figures",
    )
    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 means all network interfaces"
    )
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 picks a free port")
    workers: int = Field(
        1, ge=1, le=256, description="processes that answer requests; together they look like one server"
    )
    root_path: Annotated[str, AfterValidator(_root_path)] = Field(
        "", description="path prefix under which a reverse proxy publishes the server, such as /search"
    )
    device: Device = Field(
        "auto", description="device that encodes new items and relations; auto uses CUDA if available"
    )
    gpu_memory: float = Field(
        0.8,
        ge=0,
        le=1,
        description="share of the free GPU memory that vectors may use; what does not fit is searched on the CPU; "
        "0: search on the CPU; FAISS uses GPUs only with rcml[gpu]",
    )
    free_text_memory: ByteSize = Field(
        ByteSize(2**29),
        ge=0,
        description="memory of each process for the estimates of the free-text relations that were used last, which "
        "take 32 to 288 bytes per item and view; the last one is kept even if it takes more",
    )
    precision: TowerPrecision = Field(
        "auto",
        description="precision of the towers; auto uses bf16 where it is faster (CUDA and many recent CPUs), otherwise "
        "int8 on a CPU if it is exact enough, otherwise fp32",
    )
    engine: TowerEngine = Field(
        "auto",
        description="runtime of the towers; openvino: requires rcml[openvino], CPU only; cuda-graphs (torch, with "
        "recorded calls for few items) runs only on a GPU; auto: on a CPU OpenVINO if it is installed and can run the "
        "towers, otherwise torch; on a GPU cuda-graphs",
    )
    compact_at: int = Field(
        10_000,
        ge=0,
        description="number of changes after which the index is compacted into a new generation; 0: never",
    )
    max_body_bytes: int = Field(
        2**20, ge=1024, le=2**30, description="maximum size of a request body in bytes"
    )
    max_upload_bytes: int = Field(
        12 * 2**20,
        ge=1024,
        le=2**30,
        description="maximum size of a multipart body (picture upload) in bytes",
    )
    max_bulk_bytes: int = Field(
        2**30,
        ge=1024,
        le=2**40,
        description="maximum size of a bulk upload in bytes; --max-body-bytes limits each line",
    )
    max_connections: int = Field(
        4_096,
        ge=1,
        le=100_000,
        description="maximum open connections; if exceeded, the oldest ones without a complete request are closed",
    )
    keep_alive_seconds: float = Field(
        5,
        gt=0,
        le=3600,
        description="seconds that an idle connection stays open; must exceed the idle timeout of any load balancer",
    )
    shutdown_seconds: int = Field(
        8, ge=1, le=3600, description="maximum seconds to finish accepted requests after SIGTERM"
    )
    log_level: LogLevel = Field(
        "info", description="minimum severity of log messages; info logs every request"
    )
    keys: Path | None = Field(None, description="file of API keys, made of lines printed by `rcml key`")
    read_keys: Secrets = Field(
        (),
        description="comma-separated API keys that may query; prefer RCML_READ_KEYS, because other users can see "
        "command lines",
    )
    admin_keys: Secrets = Field(
        (), description="comma-separated API keys that may query and make changes; prefer RCML_ADMIN_KEYS"
    )
    unguarded: bool = Field(
        False,
        description="allow other machines to connect without an API key; use only if another service controls access",
    )
    rate_limit: float = Field(
        0.0,
        ge=0.0,
        le=1e6,
        description="maximum cost of requests per second per API key, or per client address without keys; a "
        "small request costs 1; 0: no limit",
    )
    rate_burst: int = Field(
        20,
        ge=1,
        le=1_000_000,
        description="maximum burst: requests that --rate-limit allows at once after a pause",
    )
    deadline: float = Field(
        10.0,
        ge=0.1,
        le=3600.0,
        description="seconds within which a response must start; bulk uploads and reloads always have at least 600",
    )
    cors_origins: Annotated[tuple[Origin, ...], *Listed] = Field(
        (),
        description="comma-separated origins whose web pages may call the API, such as https://shop.example",
    )
    allowed_hosts: Annotated[tuple[str, ...], *Listed] = Field(
        (),
        description="comma-separated host names that clients may use if the server has no API keys; IP addresses and "
        "names without a dot are always accepted",
    )
    trusted_proxies: Annotated[tuple[Network, ...], *Listed] = Field(
        (),
        description="comma-separated addresses and networks of reverse proxies, such as 127.0.0.1,10.0.0.0/24; the "
        "client, scheme and host that they name (X-Forwarded-*, Forwarded) are believed",
    )
    log_format: LogFormat = Field(
        "auto", description="format of the log; auto uses text on a terminal and JSON elsewhere"
    )
    trace: bool = Field(
        False, description="send OpenTelemetry spans to OTEL_EXPORTER_OTLP_ENDPOINT; needs rcml[otel]"
    )
    worker_patience: float = Field(
        30.0,
        ge=0.1,
        le=3600.0,
        description="seconds that a worker may spend on one job before /readyz reports it as stuck",
    )


class KeyConfig(VerbConfig):
    """Create an API key. Print the key to stderr, and its line for the `rcml serve --keys` file to stdout."""

    name: str = Field(description="name of the key in logs and metrics, such as shop-frontend")
    role: Literal["read", "admin"] = Field(
        "read", description="read allows queries; admin also allows changes"
    )
    shops: Annotated[tuple[str, ...], *Listed] = Field(
        (),
        description="shops of a server with --shops that accept the key, separated by commas; all if omitted",
    )


class DemoConfig(StageConfig):
    """Generate the sample shop, train, evaluate, index and serve. Stages that are already complete are reused."""

    out: Path = Field(Path("var/demo"), description="folder to write all artifacts to")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8000, ge=0, le=65_535, description="port to listen on; 0 picks a free port")
    unguarded: bool = Field(False, description="allow other machines to connect without an API key")
    items: int = Field(960, ge=300, le=12_096, description="number of items in the sample shop")
    shoppers: int = Field(3_200, ge=10, le=1_000_000, description="number of shoppers in the sample shop")
    steps: int = Field(100, ge=1, description="maximum training steps for each of the three networks")
    seed: int = Field(0, ge=0, description="random seed of the shop, the data split and the training")
    serve: bool = Field(True, description="start the server after the last stage")
