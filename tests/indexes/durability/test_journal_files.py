"""Files of a journal that are special files, lie behind links, or belong to another user."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from indexes.admin.accept_loss import accept_loss
from indexes.config import AcceptLossConfig
from indexes.index import Index
from indexes.journal.high_water_mark import MARK_FILE, HighWaterMark
from indexes.journal.sqlite_store import JOURNAL_FILE
from model.errors import ArtifactError, StorageError
from tests.indexes.changes import copied, made
from tests.indexes.durability.test_lost_changes import LAST, SHM, WAL, killed
from tests.indexes.fakes import FakeShop
from tests.rights import ordinary_rights


def test_mark_of_another_user_goes_on(shop: FakeShop, tmp_path: Path) -> None:
    index = killed(shop, tmp_path)
    (index / MARK_FILE).chmod(0o444)
    with ordinary_rights():
        opened = Index.open(index)
        opened.apply([made("after", 5)])
        opened.close()
    found = HighWaterMark(index).read()
    assert found is not None
    assert found.sequence == LAST + 1
    (index / MARK_FILE).chmod(0o444)
    with ordinary_rights():
        HighWaterMark(index).create()
    assert HighWaterMark(index).read() == replace(found, number=0)


def test_mark_that_may_not_be_read_is_no_loss(shop: FakeShop, tmp_path: Path) -> None:
    index = killed(shop, tmp_path)
    (index / MARK_FILE).chmod(0)
    with ordinary_rights():
        for command in (lambda: Index.open(index), lambda: accept_loss(AcceptLossConfig(index=index))):
            with pytest.raises(
                StorageError, match=rf"{MARK_FILE} cannot be read \(Permission denied\)\. Give"
            ):
                command()
    (index / MARK_FILE).chmod(0o644)
    assert "lacks no acknowledged change" in accept_loss(AcceptLossConfig(index=index))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("put", [Path.mkdir, fifo, endless, loop, dangling])
@pytest.mark.parametrize("name", [JOURNAL_FILE, WAL, SHM, f"{JOURNAL_FILE}-journal", MARK_FILE])
def test_special_file_in_place_of_a_file_is_named_and_set_aside(
    shop: FakeShop, tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    index = killed(shop, tmp_path)
    (index / name).unlink(missing_ok=True)
    put(index / name)
    with pytest.raises(ArtifactError, match=rf"{name} is .*accept-loss"):
        Index.open(index)
    assert "Accepted the loss of" in accept_loss(AcceptLossConfig(index=index))
    assert "lacks no acknowledged change" in accept_loss(AcceptLossConfig(index=index))


def test_journal_may_lie_behind_a_link(shop: FakeShop, tmp_path: Path) -> None:
    index = copied(shop, tmp_path)
    (index / JOURNAL_FILE).rename(tmp_path / "elsewhere.sqlite")
    (index / JOURNAL_FILE).symlink_to(tmp_path / "elsewhere.sqlite")
    opened = Index.open(index)
    assert opened.apply([made("new", 1)]) == [False]
    opened.close()


def test_every_damaged_journal_is_kept(shop: FakeShop, tmp_path: Path) -> None:
    index = copied(shop, tmp_path)
    for content in (b"one", b"two"):
        (index / JOURNAL_FILE).write_bytes(content)
        accept_loss(AcceptLossConfig(index=index))
    kept = [index / f"{JOURNAL_FILE}.damaged{number}" for number in ("", "-2")]
    assert [path.read_bytes() for path in kept] == [b"one", b"two"]
