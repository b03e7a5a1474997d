"""Tests of `service.client`: typed answers from a real server, retries, and errors."""

import inspect
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, get_type_hints

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from model.similarity import Similarity
from service.client import (
    ApiError,
    AsyncClient,
    Client,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Invalid,
    NotFound,
    Overloaded,
    ServerFailed,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
    endpoints,
)
from service.client.request import Call
from service.client.retries import Attempts, Policy
from service.schemas import attribute_filter, fields, pairs, retrieve
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeShop
from tests.service.conftest import Ask
from tests.service.servers import Scripted, flaky, served

KEY = "rcml_a-key-that-is-read-only"


@pytest.fixture(scope="module")
def address(config: ServeConfig) -> Iterator[str]:
    with served(config) as address:
        yield address


def test_retrieves_items_as_typed_results(ask: Ask, address: str) -> None:
    found = ask(address, "retrieve", item_id="red-mug", relation="gardeners", similarity="TT", k=2)
    assert (found.query.item_id, found.similarity, found.how) == ("red-mug", Similarity.TT, "indexed")
    best = found.results[0]
    assert (best.rank, best.relation, best.item.title) == (1, "gardeners", "Blue striped mug")
    assert len(found.results) == 2


def test_sends_all_kinds_of_retrieve_arguments(ask: Ask, address: str) -> None:
    found = ask(
        address,
        "retrieve",
        item_id="red-mug",
        relations=[{"relation": "gardeners", "weight": 2}, {"relation": "new-parents"}],
        filter={"price": {"max": {"query": "price", "times": 3}}},
        exclude=("twin-2",),
        similarity=Similarity.TT,
        fields=["item_id", "attributes"],
    )
    assert [result.item.item_id for result in found.results] == ["blue-mug", "twin-1"]
    assert [one.weight for one in found.relation] == [2, 1]
    assert found.results[0].item.attributes["price"] == 8.5


@pytest.mark.parametrize("given", [bytes, Path])
def test_accepts_picture_as_bytes_or_file(ask: Ask, address: str, shop: FakeShop, given: type) -> None:
    file = shop.prepared / ITEMS[7].picture
    picture = file.read_bytes() if given is bytes else file
    found = ask(address, "retrieve", picture=picture, relation="new-parents", k=1)
    assert (found.how, found.similarity) == ("encoded", Similarity.II)
    assert found.results[0].item.item_id == "cot"
    assert found.results[0].score == pytest.approx(1, abs=1e-6)


def test_server_fetches_picture_given_by_url(ask: Ask, address: str) -> None:
    with pytest.raises(Invalid) as refused:
        ask(address, "retrieve", picture="http://127.0.0.1/cot.png", relation="new-parents")
    assert refused.value.problem.type == "urn:rcml:problem:picture-not-fetched"


def test_retrieve_batch_returns_one_reply_per_request(ask: Ask, address: str) -> None:
    questions = [
        {"item_id": "red-mug", "relation": "gardeners", "similarity": "TT", "k": 1},
        {"item_id": "none", "relation": "gardeners"},
    ]
    answered, refused = ask(address, "retrieve_batch", questions)
    assert answered.answer.results[0].item.item_id == "blue-mug"
    assert (refused.status, refused.problem.title) == (404, "Unknown item")


def test_ranks_relations_between_two_items(ask: Ask, address: str) -> None:
    linked = ask(address, "relation_type", "cot", {"text": "Feeding bottle"}, similarity="TT")
    assert sum(one.probability for one in linked.relations) == pytest.approx(1)
    assert [one.rank for one in linked.relations] == [1, 2, 3]
    assert linked.item_b.text == "Feeding bottle"


def test_ranks_relations_of_many_pairs(ask: Ask, address: str) -> None:
    pairs = [{"item_a": "cot", "item_b": "bottle", "similarity": "TT"}, {"item_a": "cot", "item_b": "none"}]
    answered, refused = ask(address, "relation_type_batch", pairs)
    alone = ask(address, "relation_type", "cot", "bottle", similarity="TT")
    assert answered.answer.relations == alone.relations
    assert refused.status == 404


def test_explains_attention_of_relation(ask: Ask, address: str) -> None:
    explained = ask(address, "explain", "cot", {"text": "Feeding bottle"}, "new-parents")
    words = explained.item_b.text
    assert [one.text for one in words.words] == ["Feeding", "bottle"]
    assert sum(one.weight for one in words.words) + words.summary == pytest.approx(1)
    assert ask(address, "heat_map", "cot", "new-parents").startswith(b"\x89PNG")


def test_validates_single_claims_and_batches_alike(ask: Ask, address: str) -> None:
    alone = ask(address, "validity", "cot", "bottle", "new-parents")
    claim = {"item_a": "cot", "item_b": "bottle", "relation": "new-parents"}
    [together] = ask(address, "validity_batch", [claim])
    assert alone.valid == (alone.probability >= alone.threshold)
    assert together.answer.probability == alone.probability


def test_lists_relations(ask: Ask, address: str) -> None:
    known = ask(address, "relations").relations
    assert [one.relation_id for one in known] == [
        "same-item",
        "gardeners",
        "worn together / office",
        "new-parents",
    ]
    assert (known[0].intra, known[3].pairs) == (True, 2)


@pytest.mark.parametrize("page", [1, 5, 12, 100])
def test_iterates_over_all_items_page_by_page(ask: Ask, address: str, page: int) -> None:
    assert [item.item_id for item in ask(address, "items", page)] == [item.item_id for item in ITEMS]


def test_requests_pages_lazily() -> None:
    with flaky(PAGE, (500, {}, b"")) as (server, address), Client(address) as client:
        assert next(client.items(page=1)).item_id == "cot"
        assert server.paths == ["/items?limit=1&cursor=0"]


@pytest.mark.parametrize(
    "item_id", [item.item_id for item in ITEMS if not item.item_id.isascii()] + ["a/b?c#d e"]
)
def test_item_id_may_contain_any_character(ask: Ask, address: str, item_id: str, shop: FakeShop) -> None:
    [item] = [item for item in ITEMS if item.item_id == item_id]
    assert ask(address, "item", item_id).title == item.title
    assert ask(address, "image", item_id) == (shop.prepared / item.picture).read_bytes()


@pytest.mark.parametrize("item_id", [".", "..", "a/../b", "../info"])
def test_dots_in_item_id_do_not_change_path(ask: Ask, address: str, item_id: str) -> None:
    with pytest.raises(NotFound, match="No item has the ID") as refused:
        ask(address, "item", item_id)
    assert repr(item_id) in refused.value.problem.detail


def test_reports_readiness_and_versions(ask: Ask, address: str) -> None:
    ready, info = ask(address, "ready"), ask(address, "info")
    assert (ready.items, ready.relations, ready.index) == (12, 4, info.index)
    assert info.versions.python.startswith("3.")


def test_keeps_path_prefix_of_base_url(ask: Ask) -> None:
    with flaky(READY) as (server, address):
        ask(f"{address}/shops/rcml", "ready")
    assert server.paths == ["/shops/rcml/readyz"]


def test_rejection_error_contains_problem_document(ask: Ask, address: str) -> None:
    with pytest.raises(Invalid, match=r"k .*1 to 100.*HTTP 422, request my-call") as refused:
        ask(
            address,
            "retrieve",
            item_id="cot",
            k=1000,
            options={"request_id": lambda: "my-call"},
        )
    [field] = refused.value.problem.errors or []
    assert (refused.value.status, field.pointer, field.value) == (422, "#/k", "1000")
    assert refused.value.request_id == "my-call"


@pytest.fixture(scope="module")
def guarded(shop: FakeShop) -> Iterator[str]:
    with served(ServeConfig(index=shop.index, read_keys=(SecretStr(KEY),))) as address:
        yield address


def test_sends_api_key(ask: Ask, guarded: str) -> None:
    assert ask(guarded, "relations", options={"key": KEY}).in_words is False


def test_raises_unauthorized_without_api_key(ask: Ask, guarded: str) -> None:
    with pytest.raises(Unauthorized, match="requires an API key, and none was sent"):
        ask(guarded, "relations")


def test_never_shows_api_key(ask: Ask, guarded: str) -> None:
    wrong = KEY[::-1]
    with pytest.raises(Unauthorized) as refused:
        ask(guarded, "relations", options={"key": wrong})
    with pytest.raises(ConnectionFailed) as failed:
        ask("http://127.0.0.1:9", "relations", options={"key": wrong, "retries": 0})
    shown = [Client(guarded, wrong), refused.value, failed.value, failed.value.__cause__]
    assert not [one for one in shown if wrong in f"{one!r} {one} {vars(one)}"]


@pytest.mark.parametrize("key", ["", "two words", "line\nend", "schlüssel"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_rejects_key_unfit_for_header_without_showing_it(kind: Callable[..., object], key: str) -> None:
    with pytest.raises(ValueError, match="as `rcml key` printed it") as refused:
        kind("http://127.0.0.1:9", key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize(
    "base_url", ["", "127.0.0.1:8000", "localhost:8000", "ftp://shop.example", "http://"]
)
def test_rejects_invalid_base_url(base_url: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server"):
        Client(base_url)


READY: Scripted = (
    200,
    {},
    b'{"items": 1, "relations": 1, "device": "cpu", "index": "i", "checkpoint": "c"}',
)
PAGE: Scripted = (
    200,
    {},
    b'{"items": [{"item_id": "cot", "title": "Cot", "categories": [], "image_url": null}],'
    b' "total": 2, "next_cursor": 1}',
)
COT: Scripted = (
    200,
    {},
    b'{"item_id": "cot", "title": "Cot", "categories": [], "image_url": null, "description": "", "attributes": {}}',
)
BUSY: Scripted = (503, {"Retry-After": "0"}, b"")


def test_retries_temporary_failures_with_same_request_id(ask: Ask) -> None:
    with flaky(BUSY, None, COT) as (server, address):
        assert ask(address, "item", "cot").title == "Cot"
    assert len({headers["x-request-id"] for headers in server.headers}) == 1
    assert server.paths == ["/items/cot"] * 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retries_queries_after_temporary_error_status(ask: Ask, status: int) -> None:
    with flaky((status, {"Retry-After": "0"}, b""), COT) as (_, address):
        assert ask(address, "item", "cot").title == "Cot"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (421, ApiError),
        (413, Invalid),
        (415, Invalid),
        (422, Invalid),
        (500, ServerFailed),
    ],
)
def test_raises_other_rejections_without_retry(ask: Ask, status: int, kind: type[ApiError]) -> None:
    with flaky((status, {}, b"<html>")) as (server, address), pytest.raises(kind) as refused:
        ask(address, "retrieve", item_id="cot")
    assert len(server.paths) == 1
    assert type(refused.value) is kind
    assert refused.value.request_id == server.headers[0]["x-request-id"]


@pytest.mark.parametrize(("status", "kind"), [(429, Overloaded), (503, Unavailable), (502, ServerFailed)])
def test_raises_error_when_retries_are_used_up(ask: Ask, status: int, kind: type[ApiError]) -> None:
    script = [(status, {"Retry-After": "0"}, b"")] * 2
    with flaky(*script) as (server, address), pytest.raises(kind):
        ask(address, "relations", options={"retries": 1})
    assert len(server.paths) == 2


def test_waits_for_retry_after(ask: Ask) -> None:
    begun = time.monotonic()
    with flaky((429, {"Retry-After": "1"}, b""), COT) as (_, address):
        ask(address, "item", "cot")
    assert time.monotonic() - begun >= 1


def test_does_not_wait_if_retry_after_exceeds_deadline(ask: Ask) -> None:
    with flaky((429, {"Retry-After": "3600"}, b"")) as (_, address), pytest.raises(Overloaded) as refused:
        ask(address, "relations")
    assert refused.value.retry_after == 3600


def test_does_not_retry_readiness(ask: Ask) -> None:
    with flaky(BUSY) as (server, address), pytest.raises(Unavailable):
        ask(address, "ready")
    assert len(server.paths) == 1


def test_reports_connection_failure_if_nothing_listens(ask: Ask) -> None:
    with pytest.raises(
        ConnectionFailed, match=r"to http://127\.0\.0\.1:9 was attempted 2 times.*that a server is running"
    ):
        ask("http://127.0.0.1:9", "relations", options={"retries": 1})


def test_times_out_if_server_is_slow(ask: Ask) -> None:
    with flaky() as (server, address):
        server.script = slow = _Slow([COT])
        try:
            with pytest.raises(ConnectionFailed) as failed:
                ask(address, "relations", options={"timeout": 0.5, "retries": 0})
        finally:
            slow.given_up.set()
    assert isinstance(failed.value.__cause__, httpx.ReadTimeout)


class _Slow(list[Scripted]):
    def __init__(self, script: Iterable[Scripted]) -> None:
        super().__init__(script)
        self.given_up = Event()

    def pop(self, index: Any = -1) -> Scripted:
        self.given_up.wait(600)
        return super().pop(index)


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b'{"in_words": 1}', b""])
def test_rejects_response_of_another_service(ask: Ask, body: bytes) -> None:
    with (
        flaky((200, {"Content-Type": "text/html"}, body)) as (_, address),
        pytest.raises(
            UnexpectedAnswer, match=r"200 with text/html that cannot be parsed: .*Check the address"
        ),
    ):
        ask(address, "relations")


def test_does_not_follow_redirects(ask: Ask) -> None:
    with (
        flaky((307, {"Location": "http://other.example/"}, b"")) as (_, address),
        pytest.raises(UnexpectedAnswer, match=r"redirects to http://other\.example/"),
    ):
        ask(address, "relations", options={"key": KEY})


WRITE = Call("POST", "relations", bytes, b"{}", repeatable=False)
QUESTION = Call("POST", "retrieve", bytes, b"{}")
URL = httpx.URL("http://shop:8000")


@pytest.mark.parametrize(
    "error", [httpx.ReadError("reset"), httpx.ReadTimeout("late"), httpx.WriteError("gone")]
)
def test_does_not_resend_change_that_may_have_been_received(error: httpx.TransportError) -> None:
    policy = Policy(1, 5, 60)
    with pytest.raises(ConnectionFailed, match="to http://shop:8000 was attempted once"):
        Attempts(WRITE, policy).after_failure(error, URL)
    assert Attempts(QUESTION, policy).after_failure(error, URL) < 1


def test_retries_change_that_was_never_sent() -> None:
    assert Attempts(WRITE, Policy(1, 5, 60)).after_failure(httpx.ConnectError("refused"), URL) < 1


def test_does_not_resend_change_after_503() -> None:
    answer = httpx.Response(503, headers={"Retry-After": "0"})
    assert Attempts(WRITE, Policy(1, 5, 60)).after_answer(answer) is None


def test_doubles_each_pause_up_to_maximum() -> None:
    attempts = Attempts(QUESTION, Policy(1, 9, 1000, clock=lambda: 0.0, draw=lambda: 1.0))
    pauses = [attempts.after_answer(httpx.Response(503)) for _ in range(9)]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    assert attempts.after_answer(httpx.Response(503)) is None


@given(
    st.floats(0, 1, exclude_max=True),
    st.floats(0.1, 1000),
    st.lists(st.none() | st.integers(0, 100), max_size=30),
    st.floats(0, 5),
)
def test_all_pauses_together_stay_within_deadline(
    drawn: float, deadline: float, asked: list[int | None], taken: float
) -> None:
    now = 0.0
    attempts = Attempts(QUESTION, Policy(1, 100, deadline, clock=lambda: now, draw=lambda: drawn))
    for failures, seconds in enumerate(asked):
        headers = {} if seconds is None else {"Retry-After": str(seconds)}
        pause = attempts.after_answer(httpx.Response(429, headers=headers))
        if pause is None:
            break
        assert pause == (seconds or 0) + drawn * min(0.25 * 2**failures, 8.0)
        assert now + pause < deadline
        now += pause + taken


def test_attempt_timeout_is_limited_by_remaining_time() -> None:
    now = 0.0
    attempts = Attempts(QUESTION, Policy(15, 2, 60, clock=lambda: now))
    with httpx.Client(base_url=URL) as http:
        assert attempts.request(http).extensions["timeout"]["read"] == 15
        now = 50.0
        assert attempts.request(http).extensions["timeout"]["read"] == 10


def test_slow_call_extends_only_read_timeout() -> None:
    call = Call("POST", "admin/reload", bytes, b"{}", slow=True)
    with httpx.Client(base_url=URL) as http:
        timeout = Attempts(call, Policy(15, 2, 60, clock=lambda: 0.0)).request(http).extensions["timeout"]
    assert (timeout["connect"], timeout["pool"], timeout["read"]) == (15, 15, 600)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (endpoints.Retrieval, retrieve.RetrieveRequest),
        (endpoints.Claim, pairs.ValidityRequest),
        (endpoints.NewItem, fields.NewItem),
        (endpoints.InWords, fields.RelationInWords),
        (endpoints.Weighted, retrieve.WeightedRelation),
        (endpoints.Condition, attribute_filter.Filter),
        (endpoints.OfQuery, attribute_filter.OfQueryAttribute),
        (endpoints.Promoted, retrieve.Promoted),
    ],
)
def test_argument_types_match_request_schemas(given: type, taken: type[BaseModel]) -> None:
    assert set(get_type_hints(given)) == set(taken.model_fields)


def test_both_clients_have_same_methods_and_parameters() -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        found = {name: one for name, one in vars(kind).items() if not name.startswith("_")}
        return {name: list(inspect.signature(one).parameters) for name, one in found.items()}

    awaited = methods(AsyncClient)
    awaited["close"] = awaited.pop("aclose")
    assert awaited == methods(Client)


def test_import_loads_no_server_dependencies() -> None:
    heavy = ["torch", "faiss", "fastapi", "uvicorn", "starlette", "polars", "numpy", "sqlalchemy", "PIL"]
    program = f"import sys, service.client; print([one for one in {heavy} if one in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"
