"""Tests of the engine without HTTP: answers, use of the encoder, and closing."""

import asyncio
import gc
import os
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock, current_thread
from threading import enumerate as enumerate_threads
from typing import Any, TypeVar

import numpy as np
import orjson
import pytest
from numpy import ndarray
from PIL import Image
from pydantic import ByteSize

from indexes.index import Index
from indexes.journal.change import Change
from indexes.search.pairs import Verdict
from indexes.search.retrieve import Found, KnownItems, NewItem, Question, Weighted
from indexes.vectors.gpu_vectors import open_cards
from model.embeddings.encoding import Encoding
from model.errors import IntraRelationError, UnknownItemError, UnknownRelationError
from model.similarity import Similarity, View
from service.engine.engine import Engine
from service.engine.item_json import fields_of
from service.engine.network_queue import LocalNetwork
from service.schemas.retrieve import SUMMARY
from service.serve import addresses
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop, ids, write_shop
from tests.indexes.vectors.stand_in_card import StandInCard

T = TypeVar("T")


class JealousEncoder(FakeEncoder):
    """An encoder that fails if two threads use it at the same time."""

    def __init__(self) -> None:
        self.lock = Lock()

    def encode_texts(self, texts: Sequence[str]) -> ndarray:
        assert self.lock.acquire(blocking=False), "two threads encode at the same time"
        try:
            return super().encode_texts(texts)
        finally:
            self.lock.release()


def run(
    shop: FakeShop, encoder: FakeEncoder, scenario: Callable[[Engine], Awaitable[T]], close: bool = True
) -> T:
    """Run a scenario with a new engine and return its result."""

    async def inside() -> T:
        engine = Engine(Index.open(shop.index), LocalNetwork(encoder), compact_at=0)
        try:
            return await scenario(engine)
        finally:
            if close:
                engine.close()

    return asyncio.run(inside())


async def validity(engine: Engine, item_a: str, item_b: str, relation_id: str) -> Verdict:
    """Return the verdict for a pair of items under a relation, computed in the engine's threads."""
    return await engine.run_in_thread(engine.index.reader().validity, item_a, item_b, relation_id)


def test_opens_the_encoder_that_the_index_was_built_with(shop: FakeShop) -> None:
    opened = []

    def open_encoder(*how: object) -> FakeEncoder:
        opened.append(how)
        return FakeEncoder()

    config = ServeConfig(index=shop.index, device="cpu", precision="bf16", engine="openvino")
    Engine.open(config, open_encoder).close()
    assert opened == [(shop.checkpoint.resolve(), "cpu", "bf16", "openvino")]


def test_vectors_are_copied_to_gpus_unless_the_device_is_the_cpu(
    shop: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [StandInCard()]
    monkeypatch.setattr("indexes.vectors.gpu_vectors.find_cards", lambda: cards)
    monkeypatch.setattr("indexes.vectors.gpu_vectors.MIN_CARD_ITEMS", 0)
    for device, memory, line in (
        ("auto", 0.5, "Vectors of 4 relations on cuda:0 (0.0 of 0.5 GiB)."),
        ("cpu", 0.5, None),
        ("auto", 0.0, None),
    ):
        open_cards.cache_clear()
        config = ServeConfig(index=shop.index, device=device, gpu_memory=memory)
        engine = Engine.open(config, lambda *_: FakeEncoder())
        assert addresses(engine, "http://shop")[1:-1] == ([line] if line else [])
        assert ("--gpu-memory 0 rules out GPUs" in engine.vectors_device) == (line is None)
        assert bool(cards[0].used) == (line is not None)
        engine.close()
        assert cards[0].used == 0
    open_cards.cache_clear()


def test_free_text_memory_is_that_of_all_later_generations(tmp_path: Path) -> None:
    shop = write_shop(tmp_path, token_store=True)
    config = ServeConfig(index=shop.index, free_text_memory=ByteSize(1024))
    engine = Engine.open(config, lambda *_: FakeEncoder())
    for items in (12, 11):
        store = engine.index.snapshot.generation.tokens
        assert store is not None
        relation = FakeEncoder().read_relation("Things for the garden.")
        first = store.estimates(relation, View.AVERAGE)
        assert first.nbytes == 2 * items * 32
        assert store.estimates(relation, View.AVERAGE) is first
        store.estimates(relation, View.TEXT)  # exceeds the rest
        assert store.estimates(relation, View.AVERAGE) is not first
        engine.index.apply([Change(ITEMS[0].item_id)])
        engine.index.compact()
    engine.close()


@pytest.mark.parametrize("similarity", Similarity)
def test_new_item_gets_the_same_results_as_an_identical_catalogue_item(
    shop: FakeShop, similarity: Similarity
) -> None:
    async def scenario(engine: Engine) -> tuple[list[Found], list[Found]]:
        picture = Image.open(shop.prepared / ITEMS[0].picture)
        new = NewItem(await engine.encode(ITEMS[0].text, picture))
        relations = (Weighted("gardeners"),)
        reader = engine.index.reader()
        found, _ = await engine.retrieve(reader, Question(new, relations, similarity, len(ITEMS)))
        known = Question(KnownItems(("red-mug",)), relations, similarity, 100)
        expected, _ = await engine.retrieve(reader, known)
        return [one for one in found if one.row != 0], expected

    found, expected = run(shop, FakeEncoder(), scenario)
    assert [one.row for one in found] == [one.row for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=2e-3)


def test_only_one_thread_at_a_time_uses_the_encoder(shop: FakeShop) -> None:
    async def scenario(engine: Engine) -> list[Encoding]:
        return await asyncio.gather(*(engine.encode("mug", None) for _ in range(40)))

    encodings = run(shop, JealousEncoder(), scenario)
    expected = FakeEncoder().encode_texts(["mug"])
    assert all(np.array_equal(one.text, expected) for one in encodings)


def test_relation_is_valid_at_or_above_its_threshold(shop: FakeShop) -> None:
    async def scenario(engine: Engine) -> list[Verdict]:
        return [await validity(engine, "red-mug", item_b, "gardeners") for item_b in ids()[1:]]

    verdicts = run(shop, FakeEncoder(), scenario)
    for item_b, verdict in zip(ids()[1:], verdicts, strict=True):
        assert verdict.valid == (shop.probability("red-mug", item_b, "gardeners") >= verdict.threshold)


def test_rejects_the_intra_sample_relation_for_two_different_items(shop: FakeShop) -> None:
    with pytest.raises(IntraRelationError) as refused:
        run(shop, FakeEncoder(), lambda engine: validity(engine, "bib", "cot", "same-item"))
    assert refused.value.others == ["gardeners", "worn together / office", "new-parents"]


def test_error_names_the_unknown_item_or_relation(shop: FakeShop) -> None:
    with pytest.raises(UnknownItemError, match="'unicorn'"):
        run(shop, FakeEncoder(), lambda engine: validity(engine, "unicorn", "bib", "gardeners"))
    with pytest.raises(UnknownRelationError, match="'sailors'"):
        run(shop, FakeEncoder(), lambda engine: validity(engine, "bib", "cot", "sailors"))


def test_replaced_engine_closes_when_the_last_request_releases_it(shop: FakeShop) -> None:
    async def scenario(engine: Engine) -> None:
        with engine.held():
            engine.release()
            await asyncio.sleep(0.05)
            assert (await validity(engine, "bib", "cot", "gardeners")).probability > 0
        for thread in enumerate_threads():
            if thread.name == "rcml closing":
                thread.join()
        with pytest.raises(RuntimeError, match="accepts no more jobs"):
            await engine.run_in_thread(len, ())

    run(shop, FakeEncoder(), scenario, close=False)


def test_closed_engine_releases_its_memory_and_files_immediately(
    shop: FakeShop, without_collector: None
) -> None:
    async def scenario(engine: Engine) -> list[weakref.ref[object]]:
        for item_ids in (("bib",), ("bib", "cot")):
            relations = (Weighted("gardeners"),)
            question = Question(KnownItems(item_ids), relations, Similarity.AVG, 5)
            await engine.retrieve(engine.index.reader(), question)
        await engine.encode("mug", None)
        generation = engine.index.snapshot.generation
        return [weakref.ref(one) for one in (engine, engine.index, engine.network, generation.answers)]

    run(shop, FakeEncoder(), scenario)
    files = len(os.listdir("/proc/self/fd"))
    assert [one() for one in run(shop, FakeEncoder(), scenario)] == [None] * 4
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.fixture
def without_collector() -> Iterator[None]:
    """Disable the garbage collector, so that only reference counting frees objects."""
    gc.disable()
    yield
    gc.enable()


def test_items_that_are_not_cached_are_read_in_a_thread_once(
    config: ServeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[str, int]] = []
    engine = Engine.open(config, lambda *_: FakeEncoder())
    original = engine.item_json.read

    def recorded(snapshot: Any, rows: Sequence[int], fields: Sequence[str]) -> list[bytes]:
        read.append((current_thread().name, len(rows)))
        return original(snapshot, rows, fields)

    monkeypatch.setattr(engine.item_json, "read", recorded)

    async def run() -> None:
        snapshot = engine.index.snapshot
        rows = list(range(12))
        for fields in (SUMMARY, SUMMARY, ("attributes",)):
            found = await engine.items(snapshot, rows, fields)
            expected = [fields_of(item, fields) for item in snapshot.at(rows)]
            assert list(map(orjson.loads, found)) == expected

    try:
        asyncio.run(run())
    finally:
        engine.close()
    assert read == [("rcml search", 12), ("rcml search", 12)]
