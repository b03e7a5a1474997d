"""The questions that the demo prints can be asked as they stand, and have the printed answers."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from indexes.index import Index
from indexes.reader import Reader
from model.records import Relation
from service.demo_questions import contrasts, customers, lines
from service.settings import ServeConfig
from tests.indexes.fakes import FakeShop

from .conftest import served

URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def reader(shop: FakeShop) -> Iterator[Reader]:
    index = Index.open(shop.index)
    yield index.reader()
    index.close()


@pytest.fixture(scope="module")
def told(reader: Reader) -> list[str]:
    return lines(reader, URL)


def asked(client: TestClient, command: str) -> dict[str, object]:
    """Return the answer to a printed command."""
    curl, silent, url, _, header, _, body = shlex.split(command)
    assert (curl, silent, header) == ("curl", "-s", "Content-Type: application/json")
    answer = client.post(url.removeprefix(URL), json=json.loads(body))
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_questions_are_three_with_a_command_and_an_answer_each(told: list[str]) -> None:
    assert [line.split()[0] for line in told[1:]] == [
        "1.",
        "curl",
        "Answer:",
        "2.",
        "curl",
        "Answer:",
        "3.",
        "curl",
        "Answer:",
    ]


def test_commands_give_the_printed_answers(shop: FakeShop, told: list[str]) -> None:
    with served(ServeConfig(index=shop.index)) as client:
        for question in (0, 1):
            command, printed = told[2 + 3 * question], told[3 + 3 * question]
            results = asked(client, command)["results"]
            assert isinstance(results, list)
            titles = [result["item"]["title"] for result in results]
            assert printed == f"   Answer: {'; '.join(titles)}"
        replies = asked(client, told[8])["replies"]
        assert isinstance(replies, list)
        shares = [f"{reply['answer']['probability']:.0%}" for reply in replies]
        assert re.findall(r"\d+%", told[9]) == shares


def test_answers_under_the_two_relations_share_no_item(told: list[str]) -> None:
    first, second = (set(told[line].removeprefix("   Answer: ").split("; ")) for line in (3, 6))
    assert len(first) == len(second) == 3
    assert first.isdisjoint(second)


def test_the_shown_item_is_the_one_whose_answers_differ_most(reader: Reader, told: list[str]) -> None:
    best = max(contrasts(reader), key=lambda contrast: contrast.margin)
    assert all(contrast.margin <= best.margin for contrast in contrasts(reader))
    assert f'"{best.item.title}"' in told[1]


def test_customers_are_named_by_what_they_buy() -> None:
    trained = Relation(
        "a",
        "Co-purchased by people who primarily buy Pets, followed by Sports, with moderate interest in Toys.",
    )
    assert customers(trained) == "people who primarily buy Pets, followed by Sports"
    assert (
        customers(replace(trained, description="Worn together at the office."))
        == "Worn together at the office"
    )


def test_an_index_without_two_relations_that_differ_has_no_questions(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.demo_questions.contrasts", lambda reader: iter(()))
    assert lines(reader, URL) == []
