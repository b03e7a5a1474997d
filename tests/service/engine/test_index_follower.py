"""Tests of a server whose index is changed by other processes."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from indexes.index import Index
from indexes.journal.change import Change
from indexes.storage.layout import generations
from service.settings import ServeConfig
from tests.indexes.changes import copied, made
from tests.indexes.fakes import FakeShop
from tests.service.conftest import served


@pytest.fixture
def folder(shop: FakeShop, tmp_path: Path) -> Path:
    return copied(shop, tmp_path)


@pytest.fixture
def other(folder: Path) -> Iterator[Index]:
    """Open the index a second time, as another process does."""
    index = Index.open(folder)
    yield index
    index.close()


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds, with a timeout that is long enough for a slow machine."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < 600, "the condition did not hold within ten minutes"
        time.sleep(0.01)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the log messages from warnings upwards, other than the access log."""
    records = (record for record in caplog.records if record.levelno >= logging.WARNING)
    return [record.getMessage() for record in records if record.name == "rcml"]


def test_answers_include_changes_by_another_process(folder: Path, other: Index) -> None:
    with served(ServeConfig(index=folder)) as client:
        other.apply([made("new-lamp", 3), Change("cot")])
        eventually(lambda: client.get("/items/new-lamp").status_code == 200)
        assert client.get("/items/cot").status_code == 404
        answer = client.post("/retrieve", json={"item_id": "new-lamp", "relation": "gardeners", "k": 20})
        found = [result["item"]["item_id"] for result in answer.json()["results"]]
        assert len(found) == 11
        assert {"cot", "new-lamp"}.isdisjoint(found)


def test_compacts_many_changes_into_a_new_generation(folder: Path, other: Index) -> None:
    config = ServeConfig(index=folder, compact_at=3)
    with served(config) as client:
        other.apply([made("new-lamp", 3), made("new-cot", 4)])
        eventually(lambda: client.get("/items/new-cot").status_code == 200)
        assert len(generations(folder)) == 1
        other.apply([made("new-mug", 5)])
        eventually(lambda: len(generations(folder)) == 2)
        other.refresh()
        assert other.snapshot.overlay.changes == 0
        assert client.get("/items/new-mug").status_code == 200


def test_logs_once_which_generation_is_served_now(
    folder: Path, other: Index, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rcml")
    message = "Now serving generation-000002 of the index (13 items)."
    with served(ServeConfig(index=folder)):
        other.apply([made("new-lamp", 3)])
        other.compact()
        eventually(lambda: message in caplog.messages)
        time.sleep(0.5)
        assert [text for text in caplog.messages if text.startswith("Now serving")] == [message]


def test_logs_damage_once_and_continues_to_answer(
    folder: Path, other: Index, caplog: pytest.LogCaptureFixture
) -> None:
    with served(ServeConfig(index=folder)) as client:
        other.apply([made("new-lamp", 3)])
        other.compact()
        eventually(lambda: client.get("/items/new-lamp").status_code == 200)
        broken = folder / "generation-000003"
        broken.mkdir()
        (broken / "manifest.json").write_text("{}")
        eventually(lambda: bool(said(caplog)))
        time.sleep(0.5)
        assert len(said(caplog)) == 1
        assert str(broken) in said(caplog)[0]
        assert client.get("/items/new-lamp").status_code == 200
