"""Server in the network process: opens checkpoints and runs the jobs of all connections in common batches.

A connection begins with a frame `open`, and then has frames `job`, which are answered by `result` or `error`, `cancel`
and `close`. Connections that open the same checkpoint in the same way share its network. When the last of them ends,
the network is released. If a connection ends without `close`, as that of a killed process, its queued jobs are skipped.
"""

import asyncio
import mmap
import os
import socket
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from numpy import ndarray

from model.artifact import read_manifest
from model.errors import RcmlError
from service.engine.model_jobs import Job
from service.engine.network_queue import LocalNetwork
from service.engine.open_encoder import OpenLocalEncoder
from service.engine.queue_load import QueueLoad
from service.problems.errors import NoRoomError
from service.telemetry.logs import escaped, logger

from .frames import Frame, FrameError, encode, receive_from_stream
from .messages import pack, pack_error, unpack

READ_BUFFER_BYTES = 2**20
"""Size of the buffer of a connection, so that a picture is read in few pieces."""


@dataclass
class _OpenNetwork:
    """Network that at least one connection uses, and the file in which its load is published."""

    network: LocalNetwork
    load: QueueLoad
    file: Path
    holders: int = 0
    free_slots: list[int] = field(default_factory=lambda: list(range(QueueLoad.CONNECTIONS)))


class NetworkServer:
    """Networks of the network process, and their connections. Use it from one event loop."""

    def __init__(self, open_encoder: OpenLocalEncoder, folder: Path) -> None:
        """Load encoders with `open_encoder`, and publish their load in files in `folder`."""
        self._open_encoder = open_encoder
        self._folder = folder
        self._networks: dict[tuple[str, ...], _OpenNetwork] = {}
        self._opening = asyncio.Lock()
        self._numbers = count()

    async def run(self, listener: socket.socket, lifeline: int) -> None:
        """Accept connections until the other end of the pipe `lifeline` is closed, then end the process.

        The process ends without waiting for jobs, because nobody waits for their results.
        """
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(lifeline, ended.set)
        server = await asyncio.start_unix_server(self._connected, sock=listener, limit=READ_BUFFER_BYTES)
        await ended.wait()
        server.close()
        os._exit(0)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Serve one connection until it ends."""
        try:
            await self._serve(reader, writer)
        except (IncompleteReadError, ConnectionError):  # the server process ended
            pass
        except FrameError as error:
            logger.error("A connection of the network process is closed: %s", escaped(error))
        finally:
            writer.close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        opening = await receive_from_stream(reader)
        try:
            key, opened = await self._open(opening)
        except Exception as error:  # the client tells the user
            if not isinstance(error, RcmlError):
                logger.warning("A checkpoint could not be opened.", exc_info=True)
            await _send(writer, Frame("error", 0, pack_error(error)))
            return
        slot = opened.free_slots.pop()
        opened.load.received[slot] = 0
        jobs: dict[int, asyncio.Task[None]] = {}
        try:
            network = opened.network
            await _send(
                writer,
                Frame(
                    "opened",
                    0,
                    [
                        opened.file.name,
                        slot,
                        key[0],
                        network.batch_size,
                        network.device,
                        network.towers,
                        dict(network.versions),
                    ],
                ),
            )
            await self._answer(reader, writer, opened, slot, jobs)
        finally:
            for task in [*jobs.values()]:
                task.cancel()
            opened.free_slots.append(slot)
            await self._release(key, opened)

    async def _answer(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        opened: _OpenNetwork,
        slot: int,
        jobs: dict[int, asyncio.Task[None]],
    ) -> None:
        """Run the jobs of a connection until it is closed. `jobs` has the tasks of those in progress, by number."""

        async def run(frame: Frame) -> None:
            try:
                job = unpack(frame.body, frame.arrays)
                if not isinstance(job, Job):
                    raise FrameError(f"A frame of kind {frame.kind!r} has no job.")
                submitted = opened.network.submit(job)
                opened.load.received[slot] += 1  # nothing runs between this and the first step of `submit`
                result = await submitted
                arrays: list[ndarray] = []
                reply = Frame("result", frame.job, pack(result, arrays), arrays)
            except Exception as error:  # a failing job must not end the connection
                if not isinstance(error, RcmlError):
                    logger.error("A job of the network failed.", exc_info=True)
                reply = Frame("error", frame.job, pack_error(error))
            await _send(writer, reply)

        while True:
            frame = await receive_from_stream(reader)
            match frame.kind:
                case "job":
                    task = jobs[frame.job] = asyncio.create_task(run(frame))
                    task.add_done_callback(partial(_forget, jobs, frame.job))
                    await asyncio.sleep(0)  # it is queued before the next frame, which may cancel it
                case "cancel":
                    if frame.job in jobs:
                        jobs[frame.job].cancel()
                case "close":
                    await asyncio.gather(*jobs.values(), return_exceptions=True)
                    return
                case kind:
                    raise FrameError(f"A frame has the unknown kind {kind[:80]!r}.")

    async def _open(self, opening: Frame) -> tuple[tuple[str, ...], _OpenNetwork]:
        """Open the checkpoint that a frame names, or share the network of the connection that opened it first."""
        match opening:
            case Frame("open", _, [str(path), str(), str(), str()]):
                how: Any = opening.body[1:]
            case _:
                raise FrameError("The first frame of a connection does not name a checkpoint.")
        async with self._opening:
            checkpoint = Path(path)
            digest = await asyncio.to_thread(lambda: read_manifest(checkpoint, "checkpoint").digest)
            key = (digest, *how)
            if key not in self._networks:
                self._networks[key] = await asyncio.to_thread(self._load, checkpoint, how)
            opened = self._networks[key]
            if not opened.free_slots:
                raise NoRoomError(f"More than {QueueLoad.CONNECTIONS} processes ask the same network.")
            opened.holders += 1
            return key, opened

    def _load(self, checkpoint: Path, how: Any) -> _OpenNetwork:
        """Load the encoder of a checkpoint and start its network. Called in a thread."""
        encoder = self._open_encoder(checkpoint, *how)
        file = self._folder / f"load-{os.getpid()}-{next(self._numbers)}"
        with file.open("x+b") as shared:
            shared.truncate(QueueLoad.BYTES)
            load = QueueLoad(memoryview(mmap.mmap(shared.fileno(), QueueLoad.BYTES)))
        return _OpenNetwork(LocalNetwork(encoder, load=load), load, file)

    async def _release(self, key: tuple[str, ...], opened: _OpenNetwork) -> None:
        """End the use of a network by one connection."""
        opened.holders -= 1
        if not opened.holders:
            del self._networks[key]
            opened.file.unlink(missing_ok=True)
            await asyncio.to_thread(opened.network.close)


def _forget(jobs: dict[int, asyncio.Task[None]], number: int, task: asyncio.Task[None]) -> None:
    """Remove the task of a job that has ended. It fails only if the server process ended, which is not an error."""
    del jobs[number]
    if not task.cancelled():
        task.exception()


async def _send(writer: StreamWriter, frame: Frame) -> None:
    writer.writelines(encode(frame))
    await writer.drain()
