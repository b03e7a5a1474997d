"""Reload: engines opened beside the one that answers, to take its place, or to be compared with it (`shadow.py`).

Only folders beside the served index can be named, so that an admin key opens no other part of the disk. Problems show
only these names; the log has the paths.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Self

from model.errors import MismatchError, RcmlError, StorageError, UnreachableError
from service.engine.engine import Engine, OpenEncoder
from service.engine.item_json import version
from service.problems.errors import BusyError, NoRoomError, NotServableError
from service.schemas.admin import Artifacts
from service.settings import ServeConfig
from service.telemetry.logs import logger

from .engine_holder import EngineHolder


@dataclass(frozen=True)
class ArtifactNames:
    """What to open, by names of folders; None is what follows from the rest.

    That is of the index the one that is served, of the checkpoint the one that the index names, and of the report the
    one that is served, or the server was started with, if it is of the checkpoint.
    """

    index: str | None = None
    checkpoint: str | None = None
    report: str | None = None

    @classmethod
    def of(cls, asked: Artifacts) -> Self:
        """Take the names from a request."""
        return cls(asked.index, asked.checkpoint, asked.report)


@dataclass(frozen=True)
class Swap:
    """What answered before and after, as answers call it, and how long it took to get there."""

    before: str
    after: str
    seconds: float


class EngineLoader:
    """Opens one engine at a time, in a thread of its own; used from the event loop."""

    def __init__(self, config: ServeConfig, open_encoder: OpenEncoder, holder: EngineHolder) -> None:
        self._config = config
        self._folder = config.index.absolute().parent
        self._open_encoder = open_encoder
        self._holder = holder
        self._thread = ThreadPoolExecutor(1, "rcml opening")
        self._opening = False
        self._swaps: set[asyncio.Task[Swap]] = set()

    async def swap(self, named: ArtifactNames) -> Swap:
        """Replace the engine that answers; goes on even if its caller is cancelled.

        Raises:
            NotServableError, NoRoomError, BusyError: see `open`; the engine that answered goes on.
        """
        task = asyncio.create_task(self._swap(named))
        self._swaps.add(task)
        task.add_done_callback(self._swaps.discard)
        return await asyncio.shield(task)

    async def open(self, named: ArtifactNames) -> Engine:
        """Open an engine, warm. The caller has to release it, and must not be cancelled meanwhile.

        Raises:
            NotServableError: something is missing or damaged, or does not belong with the rest.
            NoRoomError: there is no memory for two.
            BusyError: another is being opened.
            UnreachableError, StorageError: a server that keeps a part of it does not answer.
        """
        if self._opening:
            raise BusyError("An index is being opened already. Ask again when that is done.")
        config = self._config_of(named)
        subject = _subject(config.index.name, named)
        self._opening = True
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._thread, Engine.open, config, self._open_encoder, self._reports()
            )
        except (UnreachableError, StorageError):
            raise
        except RcmlError as error:
            logger.warning("%s", error)
            raise NotServableError(_not_servable(subject, error)) from error
        except (MemoryError, OSError, RuntimeError) as error:  # of torch and FAISS, it is a RuntimeError
            logger.warning("%s", error, exc_info=True)
            raise NoRoomError(
                f"{subject} could not be opened beside the one that answers, which goes on: both need "
                "memory and open files at once. The server's log says what was wanting."
            ) from error
        finally:
            self._opening = False

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.gather(*self._swaps, return_exceptions=True)
        self._thread.shutdown()

    async def _swap(self, named: ArtifactNames) -> Swap:
        begun = perf_counter()
        engine = await self.open(named)
        before, after = version(self._holder.engine.index.snapshot), version(engine.index.snapshot)
        self._holder.replace(engine)
        seconds = round(perf_counter() - begun, 3)
        logger.info("%s answers in place of %s after %g s.", after, before, seconds)
        return Swap(before, after, seconds)

    def _config_of(self, named: ArtifactNames) -> ServeConfig:
        served = self._holder.engine
        index = served.index.path if named.index is None else self._folder / named.index
        checkpoint = None if named.checkpoint is None else self._folder / named.checkpoint
        if checkpoint is None and index.absolute() == self._config.index.absolute():
            checkpoint = self._config.checkpoint
        report = None if named.report is None else self._folder / named.report
        return self._config.model_copy(
            update={"index": index, "checkpoint": checkpoint, "report": report}, deep=True
        )

    def _reports(self) -> list[Path]:
        """List the reports to take if none is named, if they are of the checkpoint: the served one, then the first."""
        served = self._holder.engine.quality
        known = [None if served is None else served.path, self._config.report]
        return [path for path in known if path is not None]


def _not_servable(subject: str, error: RcmlError) -> str:
    if isinstance(error, MismatchError):
        return (
            f"{subject} cannot be served: it, its checkpoint and the report do not belong together. "
            "Name the checkpoint that it was built from, and a report of that, or build it again."
        )
    return (
        f"{subject} cannot be served: it, its checkpoint or the report is missing beside the served "
        "index, damaged, or something else. Check the name, and the index with `rcml index verify`; the server's log "
        "says more."
    )


def _subject(index: str, named: ArtifactNames) -> str:
    checkpoint = "" if named.checkpoint is None else f" with checkpoint {named.checkpoint!r}"
    report = "" if named.report is None else f" with report {named.report!r}"
    return f"Index {index!r}{checkpoint}{report}"
