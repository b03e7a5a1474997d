"""Tests that input which the server discards is read in turns, a few connections at a time."""

import asyncio
from collections.abc import Callable

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from service.http.discard_turns import DiscardTurns
from service.http.limits import BodyLimits, Limits
from service.http.server import Server

from .test_connection import PATIENT, app, running


class Wire(asyncio.Transport):
    """Connection with some pieces of input, which are read as soon as reading is not paused, one in each turn."""

    def __init__(self, turns: DiscardTurns, pieces: int, note: Callable[[], None]) -> None:
        super().__init__()
        self.turns, self.pieces, self.note = turns, pieces, note
        self.flow = FlowControl(self)
        self.closing = False
        self.resume_reading()

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        if self.reading and self.pieces and not self.closing:
            self.pieces -= 1
            self.note()
            self.turns.pause(self, self.flow)


class RecordedTurns(DiscardTurns):
    """Turns that count the reads of discarded input."""

    reads = 0

    def pause(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self.reads += 1
        super().pause(transport, flow)


def reads_by_turn(wires: int, pieces: int, reads_per_turn: int) -> list[int]:
    """Return how many connections were read in each turn of the event loop until all their input was read."""

    async def run() -> list[int]:
        turns, reads = DiscardTurns(reads_per_turn), [0]

        def note() -> None:
            reads[-1] += 1

        opened = [Wire(turns, pieces, note) for _ in range(wires)]
        while any(wire.pieces for wire in opened):
            await asyncio.sleep(0)
            reads.append(0)
        return reads

    return asyncio.run(run())


@pytest.mark.parametrize(("wires", "reads_per_turn"), [(40, 8), (3, 8), (9, 2), (1, 1)])
def test_few_connections_are_read_in_a_turn_and_all_of_them_to_their_end(
    wires: int, reads_per_turn: int
) -> None:
    reads = reads_by_turn(wires, 5, reads_per_turn)
    assert sum(reads) == 5 * wires
    assert max(reads) == wires  # each connection is paused by its first read
    later = reads[reads.index(wires) + 1 :]
    assert max(later) == min(wires, reads_per_turn)


def test_connection_that_closes_or_is_paused_otherwise_is_not_resumed() -> None:
    async def run() -> tuple[int, int, int]:
        turns = DiscardTurns(8)
        left, held, other = (Wire(turns, 5, lambda: None) for _ in range(3))
        await asyncio.sleep(0)  # each is read once
        left.closing = True
        held.flow.pause_reading()
        for _ in range(30):
            await asyncio.sleep(0)
        return left.pieces, held.pieces, other.pieces

    assert asyncio.run(run()) == (4, 4, 0)


@pytest.mark.parametrize("length", [1_000_000, 8_000_000])
def test_clients_that_send_a_refused_body_to_its_end_receive_the_reason(length: int) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n" % length

    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + bytes(length))
        await writer.drain()
        heard = await reader.read()
        writer.close()
        await writer.wait_closed()
        return heard.partition(b"\r\n")[0]

    async def run(port: int) -> list[bytes]:
        return await asyncio.gather(*(ask(port) for _ in range(20)))

    server = Server(app, Limits(BodyLimits(10_000)), PATIENT, "critical")
    turns = server.settings.discards = RecordedTurns()
    with running(server) as found:
        assert asyncio.run(run(found.port)) == [b"HTTP/1.1 413 Request Entity Too Large"] * 20
    assert turns.reads >= 20
