"""Tests of `service.client` for calls that change the catalogue, the relations or the served index."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import numpy as np
import pytest
from pydantic import BaseModel

from service.client import AdditionFailed, Client, Conflict, NotFound, UnexpectedAnswer, endpoints
from service.schemas import admin as operation
from service.schemas import item_changes as changes
from service.settings import ServeConfig
from tests.indexes.fakes import ITEMS, FakeShop, write_shop
from tests.service.conftest import Ask
from tests.service.servers import Scripted, flaky, served


def detail(state: str, **more: Any) -> Scripted:
    said: dict[str, Any] = {"relation_id": "office", "description": "Worn.", "domain": "", "origin": "added"}
    unknown = dict.fromkeys(["pairs", "paired_items", "users", "quality", "reason"])
    body = {
        **said,
        **unknown,
        "name": "Office",
        "sample_pairs": [],
        "intra": False,
        "state": state,
        "done": 0,
    }
    body |= {"total": 0, **more}
    return 202 if state == "waiting" else 200, {}, json.dumps(body).encode()


def replies(*lines: Mapping[str, Any]) -> Scripted:
    return (
        200,
        {"Content-Type": "application/x-ndjson"},
        b"".join(json.dumps(line).encode() + b"\n" for line in lines),
    )


def test_add_relation_waits_until_indexed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.endpoints.POLL_INTERVAL_S", 0.01)
    with flaky(detail("waiting"), detail("embedding", done=1, total=2), detail("indexed")) as (
        server,
        address,
    ):
        added = ask(address, "add_relation", "office", "Worn.", wait=True)
    assert added.state == "indexed"
    assert server.paths == ["/relations", "/relations/office", "/relations/office"]


def test_add_relation_without_wait_returns_current_state(ask: Ask) -> None:
    with flaky(detail("waiting")) as (server, address):
        assert ask(address, "add_relation", "office", "Worn.").state == "waiting"
    assert json.loads(server.bodies[0]) == {"relation_id": "office", "description": "Worn."}


def test_add_relation_raises_if_relation_fails(ask: Ask) -> None:
    given_up = detail("failed", reason="The disk is full.")
    with (
        flaky(given_up) as (_, address),
        pytest.raises(AdditionFailed, match=r"'office' was not added: The disk is full\."),
    ):
        ask(address, "add_relation", "office", "Worn.", wait=True)


def test_bulk_splits_many_changes_but_numbers_their_lines_continuously(ask: Ask) -> None:
    many = [{"delete": f"i{number}"} for number in range(300)]
    first = replies(*({"line": line, "item_id": "i", "status": 204} for line in range(1, 257)))
    second = replies(*({"line": line, "item_id": "i", "status": 204} for line in range(1, 45)))
    with flaky(first, second) as (server, address):
        told = ask(address, "bulk", iter(many))
    assert [reply.line for reply in told] == list(range(1, 301))
    assert b"\n".join(server.bodies) == b"\n".join(b'{"delete":"i%d"}' % number for number in range(300))


def test_bulk_consumes_changes_lazily() -> None:
    taken: list[int] = []

    def endless() -> Iterator[endpoints.Change]:
        while True:
            taken.append(len(taken))
            yield {"delete": "i"}

    group = replies(*({"line": line, "item_id": "i", "status": 204} for line in range(1, 257)))
    with flaky(group) as (_, address), Client(address) as client:
        assert next(client.bulk(endless())).status == 204
        assert len(taken) == 256


def test_bulk_sends_fewer_changes_per_request_if_they_are_large() -> None:
    item: endpoints.IdentifiedItem = {"item_id": "i", "title": "Cot", "picture": bytes(3 * 2**20)}
    sent = [call.content or b"" for call in endpoints.bulk([{"upsert": item}] * 5)]
    assert [content.count(b"\n") + 1 for content in sent] == [2, 2, 1]


def test_bulk_raises_if_a_change_gets_no_reply(ask: Ask) -> None:
    answered = replies({"line": 1, "item_id": "a", "status": 204})
    with (
        flaky(answered) as (_, address),
        pytest.raises(UnexpectedAnswer, match=r"\(changes: 2, number of the first change: 1, replies: 1\)"),
    ):
        ask(address, "bulk", [{"delete": "a"}, {"delete": "b"}])


def test_bulk_retries_after_503(ask: Ask) -> None:
    answered = replies({"line": 1, "item_id": "a", "status": 204})
    with flaky((503, {"Retry-After": "0"}, b""), answered) as (server, address):
        assert [reply.status for reply in ask(address, "bulk", [{"delete": "a"}])] == [204]
    assert server.bodies[0] == server.bodies[1]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("add_relation", ("office", "Worn.")),
        ("remove_relation", ("office",)),
        ("reload", ()),
        ("begin_shadow", (0.5,)),
        ("end_shadow", ()),
    ],
)
@pytest.mark.parametrize("failure", [None, (503, {"Retry-After": "0"}, b"")])
def test_sends_non_repeatable_calls_once(
    ask: Ask, method: str, arguments: tuple[Any, ...], failure: Scripted
) -> None:
    with flaky(failure) as (server, address), pytest.raises(Exception, match="request") as raised:
        ask(address, method, *arguments)
    assert len(server.paths) == 1
    assert raised.type.__name__ in ("ConnectionFailed", "Unavailable")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a server with its own shop, which the tests change."""
    shop = write_shop(tmp_path_factory.mktemp("changed"), token_store=True)
    with served(ServeConfig(index=shop.index)) as address:
        yield address


def test_creates_replaces_and_deletes_item(ask: Ask, address: str, shop: FakeShop) -> None:
    picture = shop.prepared / ITEMS[7].picture
    lamp = {"title": "Brass lamp", "categories": ["Office"], "attributes": {"price": 60}, "picture": picture}
    stored = ask(address, "put_item", "lamp/1", **lamp)
    assert (stored.created, stored.item.item_id, stored.item.attributes) == (True, "lamp/1", {"price": 60})
    assert ask(address, "put_item", "lamp/1", **lamp).created is False
    assert ask(address, "item", "lamp/1") == stored.item
    ask(address, "delete_item", "lamp/1")
    ask(address, "delete_item", "lamp/1")
    with pytest.raises(NotFound):
        ask(address, "item", "lamp/1")


def test_bulk_accepts_or_rejects_each_change_separately(ask: Ask, address: str) -> None:
    changes = [{"upsert": {"item_id": "new", "title": "New cot"}}, {"delete": ""}, {"delete": "new"}]
    told = ask(address, "bulk", changes)
    assert [(reply.line, reply.status) for reply in told] == [(1, 201), (2, 422), (3, 204)]
    assert told[1].problem.errors[0].pointer == "#/delete"


def test_embeddings_match_retrieve_scores(ask: Ask, address: str) -> None:
    answer = ask(address, "embeddings", ["red-mug", {"text": "Blue striped mug"}], "gardeners", ["text"])
    red, blue = (np.array(one.text) for one in answer.embeddings)
    found = ask(address, "retrieve", text="Blue striped mug", relation="gardeners", include=["red-mug"])
    assert red @ blue == pytest.approx(found.results[0].score, abs=1e-3)
    assert (answer.dim, answer.embeddings[0].average) == (len(red), None)


def test_free_text_relation_is_added_queried_and_removed(ask: Ask, address: str) -> None:
    description = "Given to gardeners at the office."
    added = ask(address, "add_relation", "gifts / office", description, wait=True)
    assert (added.origin, added.state) == ("added", "indexed")
    assert ask(address, "relation", "gifts / office").description == description
    found = ask(address, "retrieve", item_id="red-mug", relation="gifts / office", k=3)
    assert [result.relation for result in found.results] == ["gifts / office"] * 3
    ask(address, "remove_relation", "gifts / office")
    with pytest.raises(NotFound, match="No relation has the ID 'gifts / office'"):
        ask(address, "relation", "gifts / office")


def test_does_not_remove_trained_relation(ask: Ask, address: str) -> None:
    with pytest.raises(Conflict, match="'gardeners'"):
        ask(address, "remove_relation", "gardeners")


def test_reload_reopens_same_index(ask: Ask, address: str) -> None:
    swap = ask(address, "reload")
    assert swap.before.partition(".")[0] == swap.after.partition(".")[0] == ask(address, "info").index[:12]


def test_shadow_run_compares_candidate(ask: Ask, address: str) -> None:
    begun = ask(address, "begin_shadow", 1.0, index="index")
    assert (begun.share, begun.compared) == (1.0, 0)
    ask(address, "retrieve", item_id="red-mug", relation="gardeners")
    for _ in range(200):
        if (state := ask(address, "shadow")).compared:
            break
    assert (state.compared, state.overlap.identical, state.error_share) == (1, 1.0, 0.0)
    ask(address, "end_shadow")
    with pytest.raises(NotFound):
        ask(address, "shadow")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (endpoints.ItemFields, changes.ItemUpsert),
        (endpoints.IdentifiedItem, changes.BulkUpsert),
        (endpoints.Change, changes.BulkLine),
        (endpoints.Artifacts, operation.ReloadRequest),
    ],
)
def test_argument_types_match_request_schemas(given: type, taken: type[BaseModel]) -> None:
    assert set(get_type_hints(given)) == set(taken.model_fields)
