"""The engine answers without HTTP, and looks after the encoder."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest
from numpy import ndarray

from indexes.index import Index
from model.errors import UnknownItemError, UnknownRelationError
from model.records import Similarity
from service.engine import Engine, IntraRelationError
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop, ids


class JealousEncoder(FakeEncoder):
    """Fails when two threads use it at once."""

    def __init__(self) -> None:
        self.lock = Lock()

    def encode_texts(self, texts: Sequence[str]) -> ndarray:
        assert self.lock.acquire(blocking=False), "two threads encode at once"
        try:
            return super().encode_texts(texts)
        finally:
            self.lock.release()


def test_it_opens_the_encoder_of_the_checkpoint_that_the_index_names(shop: FakeShop) -> None:
    opened = []

    def open_encoder(*how: object) -> FakeEncoder:
        opened.append(how)
        return FakeEncoder()

    config = ServeConfig(index=shop.index, device="cpu", precision="bf16", engine="openvino")
    Engine.open(config, open_encoder).close()
    assert opened == [(shop.checkpoint.resolve(), "cpu", "bf16", "openvino")]


@pytest.mark.parametrize("similarity", [Similarity.TT, Similarity.TI])
def test_the_text_of_an_item_is_answered_as_the_item_would_be(engine: Engine, similarity: Similarity) -> None:
    hits = engine.retrieve_for_text(ITEMS[0].text, "gardeners", similarity, len(ITEMS))
    others = [(hit.item.item_id, hit.score) for hit in hits if hit.item != ITEMS[0]]
    expected = [
        (hit.item.item_id, hit.score) for hit in engine.retrieve("red-mug", "gardeners", similarity, 100)
    ]
    assert [item_id for item_id, _ in others] == [item_id for item_id, _ in expected]
    assert [score for _, score in others] == pytest.approx([score for _, score in expected], abs=2e-3)


def test_a_similarity_that_needs_a_picture_of_a_text_is_a_bug_of_the_caller(engine: Engine) -> None:
    with pytest.raises(AssertionError, match="needs a picture"):
        engine.retrieve_for_text("a mug", "gardeners", Similarity.IT, 1)


def test_the_encoder_is_used_by_one_thread_at_a_time(shop: FakeShop) -> None:
    engine = Engine(Index.open(shop.index), JealousEncoder(), compact_at=0)
    with ThreadPoolExecutor(8) as threads:
        ask = [
            threads.submit(engine.retrieve_for_text, "mug", "gardeners", Similarity.TT, 3) for _ in range(40)
        ]
        assert {len(answer.result()) for answer in ask} == {3}
    engine.close()


def test_a_relation_is_valid_from_its_threshold_on(engine: Engine, shop: FakeShop) -> None:
    for item_b in ids()[1:]:
        verdict = engine.validity("red-mug", item_b, "gardeners")
        assert verdict.valid == (shop.probability("red-mug", item_b, "gardeners") >= verdict.threshold)


def test_the_relation_of_an_item_with_itself_cannot_hold_between_two(engine: Engine) -> None:
    with pytest.raises(IntraRelationError) as refused:
        engine.validity("bib", "cot", "same-item")
    assert refused.value.others == ["gardeners", "worn together / office", "new-parents"]


def test_what_is_unknown_is_named(engine: Engine) -> None:
    with pytest.raises(UnknownItemError, match="'unicorn'"):
        engine.item("unicorn")
    with pytest.raises(UnknownRelationError, match="'sailors'"):
        engine.retrieve_for_text("a mug", "sailors", Similarity.TT, 1)


def test_a_small_catalogue_is_searched_on_the_spot(engine: Engine) -> None:
    assert engine.quick
