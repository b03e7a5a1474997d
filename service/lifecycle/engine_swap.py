"""Loader that opens a second engine next to the serving engine, for a reload or a shadow run (`shadow_run.py`).

Only folders next to the served index can be named, so that an admin key gives no access to other parts of the disk.
Problem details show only these names; the log shows the paths.
"""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol, Self

from model.errors import MismatchError, RcmlError, StorageError, UnreachableError
from service.engine.engine import Engine, OpenEncoder
from service.engine.item_json import version
from service.problems.errors import BusyError, NetworkLostError, NoRoomError, NotServableError
from service.schemas.admin import Artifacts
from service.settings import ServeConfig
from service.shared.channel import Frame
from service.shared.counters import SharedCounters
from service.telemetry.logs import escaped, logger

from .engine_holder import EngineHolder

OPENING = "Another index is already being opened. Retry when it is open."

_ABSOLUTE_PATH = re.compile(r"(?<![\w.])/\w")


@dataclass(frozen=True)
class ArtifactNames:
    """Names of the folders to open; None selects the default.

    The default index is the served index. The default checkpoint is the one that the chosen index names. However, if
    the chosen index is the one that the server was started with, the value of `--checkpoint` takes precedence. The
    default report is the served report or, if that does not belong to the checkpoint, the report that the server was
    started with. If neither report belongs to the checkpoint, no report is used.
    """

    index: str | None = None
    checkpoint: str | None = None
    report: str | None = None

    @classmethod
    def of(cls, asked: Artifacts) -> Self:
        """Return the names in a request."""
        return cls(asked.index, asked.checkpoint, asked.report)


@dataclass(frozen=True)
class ArtifactPaths:
    """Artifacts to open, whatever is served at the time.

    `report` must belong to the checkpoint. If it is None, the first of `reports` that does is used.
    """

    index: str
    checkpoint: str | None
    report: str | None
    reports: tuple[str, ...]
    subject: str
    """Name of the artifacts in messages."""

    def frame(self) -> Frame:
        """Return the paths as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, frame: Frame) -> Self:
        """Return the paths in a JSON object."""
        return cls(**{**frame, "reports": tuple(frame["reports"])})


@dataclass(frozen=True)
class Swap:
    """Result of a swap: the served version before and after it, and its duration in seconds."""

    before: str
    after: str
    seconds: float


class Swapper(Protocol):
    """Whatever replaces the serving engine: the loader of a single process, or the workers of a server together."""

    async def swap(self, named: ArtifactNames) -> Swap:
        """Open an engine and replace the serving engine; see `EngineLoader.swap`."""


class EngineLoader:
    """Loader that opens one engine at a time in its own thread. Use it from the event loop."""

    def __init__(
        self,
        config: ServeConfig,
        open_encoder: OpenEncoder,
        holder: EngineHolder,
        counters: SharedCounters | None = None,
    ) -> None:
        self._counters = counters
        self._config = config
        self._folder = config.index.absolute().parent
        self._open_encoder = open_encoder
        self._holder = holder
        self._thread = ThreadPoolExecutor(1, "rcml opening")
        self._opening = False
        self._swaps: set[asyncio.Task[Swap]] = set()

    async def swap(self, named: ArtifactNames) -> Swap:
        """Open an engine and replace the serving engine. The swap continues even if its caller is cancelled.

        Raises:
            NotServableError, NoRoomError, BusyError, UnreachableError, StorageError: see `open`. The serving engine
                stays in place.
        """
        task = asyncio.create_task(self._swap(named))
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)
        return await asyncio.shield(task)

    async def open(self, named: ArtifactNames) -> Engine:
        """Open and warm up an engine. The caller must release the engine, and must not be cancelled during the call.

        Raises:
            NotServableError: an artifact is missing or damaged, or the artifacts do not belong together.
            NoRoomError: memory or file descriptors are insufficient for a second engine.
            BusyError: another engine is being opened.
            UnreachableError, StorageError: a database or vector server that stores part of the index does not respond.
            NetworkLostError: the network process ended while it opened the checkpoint.
        """
        return await self.open_paths(self.paths(named))

    async def open_paths(self, paths: ArtifactPaths) -> Engine:
        """Open an engine as `open` does."""
        if self._opening:
            raise BusyError(OPENING)
        config = self._config.model_copy(
            update={
                "index": Path(paths.index),
                "checkpoint": _path(paths.checkpoint),
                "report": _path(paths.report),
            },
            deep=True,
        )
        self._opening = True
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._thread,
                Engine.open,
                config,
                self._open_encoder,
                [Path(path) for path in paths.reports],
                self._counters,
            )
        except (UnreachableError, StorageError, NetworkLostError):
            raise
        except RcmlError as error:
            logger.warning("%s", escaped(error))
            raise NotServableError(_not_servable(paths.subject, error, self._folder)) from error
        except (MemoryError, OSError, RuntimeError) as error:  # torch and FAISS raise RuntimeError
            logger.warning("%s", error, exc_info=True)
            raise NoRoomError(
                f"{paths.subject} could not be opened: the server does not have enough memory or file descriptors for "
                "two open indexes. The current index stays in service. See the server log for the cause."
            ) from error
        finally:
            self._opening = False

    async def close(self) -> None:
        """Wait for all swaps in progress to finish, and stop the thread."""
        await asyncio.gather(*self._swaps, return_exceptions=True)
        self._thread.shutdown()

    async def _swap(self, named: ArtifactNames) -> Swap:
        begun = perf_counter()
        engine = await self.open(named)
        before, after = version(self._holder.engine.index.snapshot), version(engine.index.snapshot)
        self._holder.replace(engine)
        seconds = round(perf_counter() - begun, 3)
        logger.info("Index version %s replaced %s. The swap took %g s.", after, before, seconds)
        return Swap(before, after, seconds)

    def paths(self, named: ArtifactNames) -> ArtifactPaths:
        """Return the artifacts that the names mean while the current engine is served."""
        served = self._holder.engine
        index = served.index.path if named.index is None else self._folder / named.index
        checkpoint = None if named.checkpoint is None else self._folder / named.checkpoint
        if checkpoint is None and index.absolute() == self._config.index.absolute():
            checkpoint = self._config.checkpoint
        report = None if named.report is None else self._folder / named.report
        # The default reports: the served one, then the one that the server was started with.
        known = [None if served.quality is None else served.quality.path, self._config.report]
        return ArtifactPaths(
            str(index.absolute()),
            None if checkpoint is None else str(checkpoint),
            None if report is None else str(report),
            tuple(str(path) for path in known if path is not None),
            _subject(index.name, named),
        )


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)


def _not_servable(subject: str, error: RcmlError, folder: Path) -> str:
    if isinstance(error, MismatchError):
        return (
            f"{subject} cannot be served: the index, checkpoint and report do not belong together. Name the checkpoint "
            "that the index was built from and a report of that checkpoint, or rebuild the index."
        )
    return (
        f"{subject} cannot be served: the index, checkpoint or report is missing from the parent folder of the served "
        "index, is damaged, or is another kind of artifact. Check the names, check the index with `rcml index verify`, "
        f"and see the server log for details.{_reason(error, folder)}"
    )


def _reason(error: RcmlError, folder: Path) -> str:
    """Return the message of an error with paths relative to `folder`; empty if it names a path elsewhere."""
    text = str(error)
    for place in (folder, folder.resolve()):
        text = text.replace(f"{place}/", "")
    return "" if _ABSOLUTE_PATH.search(text) else f" Reason: {text}"


def _subject(index: str, named: ArtifactNames) -> str:
    checkpoint = "" if named.checkpoint is None else f" with checkpoint {named.checkpoint!r}"
    report = "" if named.report is None else f" with report {named.report!r}"
    return f"Index {index!r}{checkpoint}{report}"
