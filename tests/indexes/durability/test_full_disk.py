"""Disk that becomes full at the n-th write, for various n.

The operation fails with an error message, reads continue, and nothing is half written.
"""

import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from indexes.admin.backup import restore, snapshot
from indexes.builder.build import build
from indexes.config import BuildConfig, RestoreConfig, SnapshotConfig
from indexes.index import Index
from indexes.journal.change import Change
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import StorageError
from tests.disk.disk import Watched, run_watched
from tests.indexes.changes import SAILORS, Expected, add, copied, made
from tests.indexes.fakes import FakeEncoder, FakeShop, write_shop

CHANGES = [made("new", 1), Change("cot")]
SAID = "o space left on device|disk is full|unable to open database|disk I/O error"

MORE = [made("newer", 2), Change("new"), made("bib", 3)]


def _apply(index: Index, shop: FakeShop) -> None:
    index.apply(MORE)


def _compact(index: Index, shop: FakeShop) -> None:
    index.compact()


def _add(index: Index, shop: FakeShop) -> None:
    # The previous attempt may have added the relation and failed only in its cleanup.
    if SAILORS not in index.relations:
        add(index)
    assert index.relations[-1] == SAILORS


def _snapshot(index: Index, shop: FakeShop) -> None:
    snapshot(SnapshotConfig(index=index.path, out=index.path.parent / "snapshot"))


def _restore(index: Index, shop: FakeShop) -> None:
    restore(RestoreConfig(snapshot=shop.index, out=index.path, checkpoint=shop.checkpoint))


def _build(index: Index, shop: FakeShop) -> None:
    parents = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    config = BuildConfig(
        checkpoint=shop.checkpoint,
        prepared=shop.prepared,
        out=index.path,
        discard_changes=True,
        token_store=True,
    )
    build(config, FakeEncoder(), *parents)


WORK: Mapping[str, Callable[[Index, FakeShop], None]] = {
    "apply": _apply,
    "compact": _compact,
    "add": _add,
    "snapshot": _snapshot,
    "restore": _restore,
    "build": _build,
}


def fill(folder: str, name: str, most: str) -> None:
    """Run one kind of operation on disks that become full after 0, 1, 2, ... writes, and on a disk with enough room.

    If more than `most` disks are too small, `most` of them are chosen at random.
    """
    work, base = WORK[name], Path(folder)
    shop = write_shop(base / "shop", token_store=True)
    writes = _writes(base / "whole", shop, work)
    tried = random.Random(writes).sample(range(writes), min(writes, int(most)))
    for room in (*sorted(tried), writes):
        place = base / f"{room}"
        place.mkdir()
        _try(place, shop, work, room, enough=room == writes)
        shutil.rmtree(place)


def _writes(place: Path, shop: FakeShop, work: Callable[[Index, FakeShop], None]) -> int:
    """Return the number of writes that the operation needs on a disk with enough room."""
    place.mkdir()
    index = _opened(place, shop)
    watched = Watched(place)
    with watched.limited(None):
        work(index, shop)
    index.close()
    return watched.taken()


def _try(
    place: Path, shop: FakeShop, work: Callable[[Index, FakeShop], None], room: int, enough: bool
) -> None:
    index = _opened(place, shop)
    before, after = Expected(shop), Expected(shop)
    before.apply(*CHANGES)
    if work is _apply:
        after.apply(*CHANGES, *MORE)
    elif work in (_compact, _add, _snapshot):
        after.apply(*CHANGES)
    with Watched(place).limited(room):
        refused = ""
        try:
            work(index, shop)
        except StorageError as error:
            refused = str(error)
        assert not refused or re.search(SAID, refused), refused
        index.refresh()
        expected = _expected(index, before, after)
        expected.check(index)
    assert refused or expected is after
    assert not (enough and refused)
    index.close()
    again = Index.open(place / "index")
    expected.check(again)
    if refused:
        assert not list((place / "index").glob(".generation-*.partial"))
        work(again, shop)
        again.refresh()
        after.check(again)
    again.close()


def _expected(index: Index, before: Expected, after: Expected) -> Expected:
    """Return the state that the index is in; a failed operation may be complete except for its cleanup."""
    items = [item.item_id for _, item in index.snapshot.page(0, 100)]
    return after if items == list(after.items) else before


def _opened(place: Path, shop: FakeShop) -> Index:
    index = Index.open(copied(shop, place))
    index.apply(CHANGES)
    return index


@pytest.mark.parametrize("work", WORK)
def test_operation_on_full_disk_fails_and_reads_continue(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_full_disk:fill", tmp_path, work, 5)


@pytest.mark.soak
@pytest.mark.parametrize("work", WORK)
def test_operation_with_disk_full_at_any_write_fails_and_reads_continue(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_full_disk:fill", tmp_path, work, 10**9)
