"""Versions and digests of the running server, which identify the software and the data behind an answer."""

import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from model import __version__
from service.schemas.info import Info, Versions
from service.settings import ServeConfig

from .engine import Engine

_LIBRARIES = ("fastapi", "faiss", "torch", "transformers")


def info_of(engine: Engine, config: ServeConfig, started: datetime) -> Info:
    """Return the versions, digests and state of a server that started at `started`."""
    index, snapshot = engine.index, engine.index.snapshot
    return Info(
        versions=_versions(engine.network.versions),
        index=snapshot.generation.manifest.digest,
        generation=snapshot.generation.path.name,
        checkpoint=index.checkpoint.manifest.digest,
        items=len(snapshot),
        relations=len(index.relations),
        overlay_changes=snapshot.overlay.changes,
        device=engine.device,
        vectors=engine.vectors_device,
        precision=config.precision,
        engine=config.engine,
        towers=engine.towers,
        started=started,
        uptime_s=round(max(0.0, (datetime.now(UTC) - started).total_seconds()), 3),
    )


def _versions(network: Mapping[str, str]) -> Versions:
    """Return the versions of the software; `network` has those of the libraries that the network runs with."""
    loaded = {name: str(sys.modules[name].__version__) for name in _LIBRARIES if name in sys.modules}
    known = {name: network.get(name, loaded.get(name)) for name in _LIBRARIES}
    return Versions(rcml=__version__, python=platform.python_version(), **known)
