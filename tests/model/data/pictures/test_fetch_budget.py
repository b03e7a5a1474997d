"""Costly responses: the parser receives little text at once, and a response that is mostly text is refused."""

import asyncio
import re
from collections.abc import Callable

import pytest

from model.data.pictures.fetch_budget import (
    FREE_PIECES,
    LINES_PER_SLICE,
    CostlyResponseError,
    FetchBudget,
)
from model.errors import FetchError
from tests.model.data.pictures.test_image_fetcher import CHUNKED, PICTURE, Answer, fetched, ok

TINY = b"1\r\n\0\r\n"
"""Chunk with one byte of content."""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"


def endless(text: bytes, head: bytes = b"") -> Answer:
    """Return an answer that sends `head`, then `text` until the client closes the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(text * 2_000)
            await writer.drain()

    return answer


COSTLY = {
    "tiny chunks": (endless(TINY, CHUNKED), "pieces"),
    "tiny chunks with long extensions": (endless(b"1;" + b"x" * 60_000 + b"\r\n\0\r\n", CHUNKED), "bytes"),
    "interim responses": (endless(b"HTTP/1.1 100 Continue\r\n\r\n"), "lines without a part"),
    "other interim responses": (endless(b"HTTP/1.1 103 Early\nLink: <a>\n\n"), "lines without a part"),
    "header fields": (endless(b"a:\r\n", HEAD), "lines without a part"),
    "trailers": (endless(b"a:\r\n", CHUNKED + b"4\r\nabcd\r\n0\r\n"), "lines without a part"),
    "empty folded header": (endless(b" \r\n", HEAD), "lines without a part"),
}


@pytest.mark.parametrize("kind", COSTLY)
def test_refuses_a_response_that_is_mostly_text(kind: str) -> None:
    answer, reason = COSTLY[kind]
    with pytest.raises(FetchError, match=f"its server sent .*{reason}"):
        fetched({"/": answer}, seconds=60)


def test_tiny_pieces_are_refused_after_the_free_ones() -> None:
    budget = FetchBudget(max_bytes=1_000_000)
    for size in range(1, FREE_PIECES + 2):
        budget.receive(size)  # one more is free, since the content has reached 1,001 bytes
    with pytest.raises(CostlyResponseError, match=r"1,002 bytes in 1,002 pieces"):
        budget.receive(FREE_PIECES + 2)
    budget.begin()
    budget.receive(1)


@pytest.mark.parametrize("size", [1, 7, 500])
def test_parser_receives_text_in_slices_with_other_tasks_between(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[int] = []
    read: Callable[[FetchBudget, bytes], None] = FetchBudget.read

    def recorded(budget: FetchBudget, part: bytes) -> None:
        if not budget.plain and len(part) < 64 * part.count(b"\n"):
            parts.append(part.count(b"\n"))
        read(budget, part)

    monkeypatch.setattr(FetchBudget, "read", recorded)
    chunk = b"%x\r\n%s\r\n" % (size, b"\n" * size)
    with pytest.raises(FetchError):
        fetched({"/": endless(chunk, CHUNKED)}, seconds=60)
    assert len(parts) > 10
    assert max(parts) <= LINES_PER_SLICE


def test_fetches_an_uncompressed_picture_of_line_feeds() -> None:
    picture = b"\n" * 1_000_000
    assert fetched({"/": ok(picture)}) == picture


@pytest.mark.parametrize("size", [600, 4_096, 100_000])
def test_fetches_a_picture_in_chunks_of_a_usual_size(size: int) -> None:
    picture = PICTURE * 100
    chunks = [picture[start : start + size] for start in range(0, len(picture), size)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    assert fetched({"/": CHUNKED + body + b"0\r\n\r\n"}) == picture


def test_fetches_after_a_few_interim_responses() -> None:
    assert fetched({"/": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" * 20 + ok()}) == PICTURE


def test_refusal_names_what_was_sent_and_the_limit() -> None:
    with pytest.raises(FetchError) as refused:
        fetched({"/": endless(TINY, CHUNKED)}, seconds=60)
    assert re.search(r"1,002 bytes in 1,002 pieces", str(refused.value))
    assert "512 bytes on average" in str(refused.value)
