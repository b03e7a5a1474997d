"""The power fails at any moment: whatever the disk may then hold, an index opens with every acknowledged change.

A kill never tests a sync, since the kernel still has what was written. So a process is traced while it works, and
the disks that a power failure could have left are opened one by one (`tests/disk/power.py`). Of the syncs of ours
it is tested that without them one of these disks would be bad.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from indexes.admin.backup import restore, snapshot
from indexes.builder.build import build
from indexes.config import BuildConfig, RestoreConfig, SnapshotConfig
from indexes.index import Index
from indexes.journal.journal import Change
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import ArtifactError, RcmlError
from tests.disk.disk import Watched, run_watched
from tests.disk.power import Disk, Event, Tree, read_trace
from tests.indexes.changes import SAILORS, Expected, add, made
from tests.indexes.fakes import FakeEncoder, FakeShop, write_shop

Mark = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """What is done below `root`, and what must be there when the power failed after a mark."""

    begin: Callable[[FakeShop, Path], None]
    do: Callable[[FakeShop, Path, Mark], None]
    check: Callable[[FakeShop, Path, int], None]


STEPS: list[list[Change]] = [
    [made("new", 1)],
    [Change("cot"), made("bib", 2)],
    [],  # a compaction
    [made("newer", 3), Change("new")],
    [],
    [Change("newer")],
]


def begin_changes(shop: FakeShop, root: Path) -> None:
    shutil.copytree(shop.index, root / "index")


def do_changes(shop: FakeShop, root: Path, mark: Mark) -> None:
    index = Index.open(root / "index", shop.checkpoint)
    for number, changes in enumerate(STEPS, start=1):
        if changes:
            index.apply(changes)
        else:
            index.compact()
        mark(number)
    index.close()


def check_changes(shop: FakeShop, root: Path, marked: int) -> None:
    """As after the last acknowledged step, or with the one that was under way."""
    is_one_of(root / "index", shop, STEPS[:marked], STEPS[: marked + 1])


def begin_build(shop: FakeShop, root: Path) -> None:
    pass


def do_build(shop: FakeShop, root: Path, mark: Mark) -> None:
    parents = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=root / "index")
    build(config, FakeEncoder(), *parents)
    mark(1)


def check_build(shop: FakeShop, root: Path, marked: int) -> None:
    """Whole; or, before it was acknowledged, not there at all, or known to be unfinished."""
    whole_or_none(root / "index", shop, [], must=marked >= 1)


def begin_copy(shop: FakeShop, root: Path) -> None:
    shutil.copytree(shop.index, root / "index")
    index = Index.open(root / "index", shop.checkpoint)
    index.apply(STEPS[0])
    index.close()


def do_copy(shop: FakeShop, root: Path, mark: Mark) -> None:
    snapshot(SnapshotConfig(index=root / "index", out=root / "snapshot"))
    mark(1)
    index = Index.open(root / "index", shop.checkpoint)
    index.apply(STEPS[1])
    index.close()
    mark(2)
    restore(RestoreConfig(snapshot=root / "snapshot", out=root / "index", checkpoint=shop.checkpoint))
    mark(3)


def check_copy(shop: FakeShop, root: Path, marked: int) -> None:
    """The index as before or after what was under way; the snapshot whole once it was acknowledged."""
    one, two = STEPS[:1], STEPS[:2]
    is_one_of(root / "index", shop, *[(one,), (one, two), (two, one), (one,)][marked])
    whole_or_none(root / "snapshot", shop, one, must=marked >= 1)


def begin_relation(shop: FakeShop, root: Path) -> None:
    parents = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    out = root / "index"
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=out, token_store=True)
    build(config, FakeEncoder(), *parents)


def do_relation(shop: FakeShop, root: Path, mark: Mark) -> None:
    index = Index.open(root / "index", shop.checkpoint)
    index.apply(STEPS[0])
    mark(1)
    add(index)
    mark(2)
    index.apply(STEPS[1])
    mark(3)
    index.close()


def check_relation(shop: FakeShop, root: Path, marked: int) -> None:
    """The relation is there once it was acknowledged, and every change is."""
    none: list[list[Change]] = []
    one, two = STEPS[:1], STEPS[:2]
    is_one_of(root / "index", shop, *[(none, one), (one,), (one, two), (two,)][marked])
    index = Index.open(root / "index", shop.checkpoint)
    index.close()
    assert SAILORS in index.relations or marked < 2, "the relation is lost"


WORK: Mapping[str, Work] = {
    "changes": Work(begin_changes, do_changes, check_changes),
    "build": Work(begin_build, do_build, check_build),
    "copy": Work(begin_copy, do_copy, check_copy),
    "relation": Work(begin_relation, do_relation, check_relation),
}


def is_one_of(path: Path, shop: FakeShop, *allowed: list[list[Change]]) -> None:
    """The index there opens, and holds what some steps make."""
    index = Index.open(path, shop.checkpoint)
    try:
        items = [item.item_id for _, item in index.snapshot.page(0, 100)]
        candidates = []
        for steps in allowed:
            expected = Expected(shop)
            for changes in steps:
                expected.apply(*changes)
            candidates.append(expected)
        fitting = [expected for expected in candidates if list(expected.items) == items]
        assert fitting, f"{path} holds {items}"
        fitting[-1].check(index)
    finally:
        index.close()


def whole_or_none(path: Path, shop: FakeShop, steps: list[list[Change]], must: bool) -> None:
    try:
        is_one_of(path, shop, steps)
    except ArtifactError:
        if must:
            raise
        # Nobody was told that it is there; making it again must do.
        if path.exists() and not any(one.name.startswith("generation-") for one in path.iterdir()):
            return
        assert not path.exists(), f"{path} is there, and not whole"


def traced(folder: Path, work: Work) -> tuple[FakeShop, Disk, list[Event]]:
    """Do the work, and tell what it did to the disk."""
    shop, root = write_shop(folder / "shop"), folder / "root"
    root.mkdir()
    work.begin(shop, root)
    disk, watched = Disk(root), Watched(root)
    with watched.traced(folder / "trace"):
        work.do(shop, root, watched.mark)
    events = read_trace(folder / "trace")
    disk.replay(events)
    return shop, disk, events


def complaint(work: Work, shop: FakeShop, place: Path, marked: int, tree: Tree) -> str:
    """What is wrong with one disk; nothing, if nothing is."""
    tree.write(place)
    try:
        work.check(shop, place, marked)
    except (AssertionError, RcmlError) as error:
        return f"after mark {marked}: {error!r}"
    finally:
        shutil.rmtree(place)
    return ""


def endure(folder: str, name: str, each: str) -> None:
    """The disks that a power failure may leave are good; `each` are tried of one moment, or all of them."""
    base, work = Path(folder), WORK[name]
    shop, disk, _ = traced(base, work)
    tried = 0
    for marked, tree in disk.after_failures(each=int(each) if each != "all" else None):
        assert not (said := complaint(work, shop, base / "disk", marked, tree)), said
        tried += 1
    print(f"{name}: {tried} disks")


def ours(events: list[Event], root: Path) -> dict[str, frozenset[int]]:
    """The syncs by the place in the code that does them."""
    places: dict[str, set[int]] = {}
    for at, event in enumerate(events):
        if event.operation == "sync":
            places.setdefault(_place(events, at, root), set()).add(at)
    return {place: frozenset(found) for place, found in places.items()}


def _place(events: list[Event], at: int, root: Path) -> str:
    path = Path(events[at].path)
    if ".partial" in path.name:
        return "the folder written aside"
    if ".partial" in events[at].path:
        return "the files written aside"
    if "changes.sqlite" in path.name:
        return "a new journal" if path.name.startswith(".") else "the journal"
    before = next(one.operation for one in reversed(events[:at]) if one.operation in _FOLDER_OF)
    return _FOLDER_OF[before]


_FOLDER_OF = {
    "mkdir": "the folder of a new folder",
    "rename": "the folder renamed into",
    "link": "the folder of a new journal",
    "remove": "the folder of a new journal",
}

NEEDED = {
    "build": {
        "the folder of a new folder",
        "the files written aside",
        "the folder written aside",
        "the folder renamed into",
    },
    "copy": {"the folder renamed into"},
    "relation": {"the folder renamed into"},
    "changes": {"a new journal", "the folder of a new journal", "the journal"},
}
"""What is synced, and must be. While an index is changed, a lost generation is made up for by the one before."""


def miss(folder: str, name: str, each: str) -> None:
    """Without the syncs of any one place in the code, some disk is bad."""
    base, work = Path(folder), WORK[name]
    shop, disk, events = traced(base, work)
    places = ours(events, base / "root")
    assert places.keys() >= NEEDED[name]
    for place in NEEDED[name]:
        assert any(complaints(work, shop, disk, base, places[place], int(each))), (
            f"{place} need not be synced"
        )


def miss_each(folder: str, name: str) -> None:
    """Without any one of our syncs, some disk is bad; those of SQLite's, which come before ours, are its own."""
    base, work = Path(folder), WORK[name]
    shop, disk, events = traced(base, work)
    last = {events[at].path: at for at in disk.syncs() if "catalogue.sqlite" not in events[at].path}
    assert len(last) > 30
    for path, at in last.items():
        assert any(complaints(work, shop, disk, base, frozenset({at}), 8)), f"{path} need not be synced"


def complaints(
    work: Work, shop: FakeShop, disk: Disk, base: Path, without: frozenset[int], each: int | None = None
) -> Iterator[str]:
    """From the last moment back, as what was never synced is missed more often the more came after.

    But of changes from the first one on: a compaction makes up for what was lost before it.
    """
    disks = disk.after_failures(without, each)
    for marked, tree in disks if work is WORK["changes"] else reversed(list(disks)):
        yield complaint(work, shop, base / "disk", marked, tree)


@pytest.mark.parametrize("work", WORK)
def test_whatever_a_power_failure_leaves_is_good(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:endure", tmp_path, work, 1)


@pytest.mark.parametrize("work", WORK)
def test_without_any_of_our_syncs_a_power_failure_leaves_damage(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:miss", tmp_path, work, 8)


@pytest.mark.soak
@pytest.mark.parametrize("work", WORK)
def test_whatever_a_power_failure_leaves_at_all_is_good(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:endure", tmp_path, work, "all")


@pytest.mark.soak
def test_without_any_single_sync_of_a_build_a_power_failure_leaves_damage(tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:miss_each", tmp_path, "build")
