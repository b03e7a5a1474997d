"""Power failure at any moment: an index opens with every acknowledged change, in every possible state of the disk.

Killing a process does not test its fsyncs, because the kernel still writes its data to disk. The tests therefore trace
the file operations of a process, and open the index from each disk state that a power failure could have left behind
(`tests/disk/power.py`). Other tests show that every fsync is necessary: without it, at least one disk state is invalid.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import pytest

from indexes.admin.backup import restore, snapshot
from indexes.builder.build import build
from indexes.config import BuildConfig, RestoreConfig, SnapshotConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.journal.high_water_mark import MARK_FILE, SYNC_INTERVAL_S
from indexes.journal.sqlite_store import JOURNAL_FILE
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import ArtifactError, LostChangesError, RcmlError
from tests.disk.disk import Watched, run_watched
from tests.disk.power import Disk, Event, Tree, read_trace
from tests.indexes.changes import SAILORS, Expected, add, made
from tests.indexes.fakes import FakeEncoder, FakeShop, write_shop

Mark = Callable[[int], None]


@dataclass(frozen=True)
class Work:
    """Operation on the folder `root`.

    `begin` prepares the folder, and `do` runs the operation and sets marks. `check` checks the folder after a power
    failure that followed a given mark.
    """

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


ACKNOWLEDGED = [changes for changes in STEPS if changes]


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
    """Check that the index contains the acknowledged steps, with or without the step in progress."""
    is_one_of(root / "index", shop, STEPS[:marked], STEPS[: marked + 1])


def do_acknowledged(shop: FakeShop, root: Path, mark: Mark) -> None:
    """Apply the changes, and wait after each step until the high-water mark has reached the disk too."""
    index = Index.open(root / "index", shop.checkpoint)
    for number, changes in enumerate(ACKNOWLEDGED, start=1):
        index.apply(changes)
        sleep(3 * SYNC_INTERVAL_S)
        mark(number)
    index.close()


def check_acknowledged(shop: FakeShop, root: Path, marked: int) -> None:
    """Check that a power failure does not hide the loss of the journal, and that the error names each lost change."""
    for name in ("", "-wal", "-shm"):
        (root / "index" / f"{JOURNAL_FILE}{name}").unlink(missing_ok=True)
    message = ""
    try:
        Index.open(root / "index", shop.checkpoint).close()
    except LostChangesError as error:
        message = str(error)
    count = sum(map(len, ACKNOWLEDGED[:marked]))
    named = re.search(r"numbers 1 to (\d+) ", message)
    assert message, "the loss is not noticed"
    assert count <= (int(named[1]) if named else 0), message


def begin_build(shop: FakeShop, root: Path) -> None:
    pass


def do_build(shop: FakeShop, root: Path, mark: Mark) -> None:
    parents = Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=root / "index")
    build(config, FakeEncoder(), *parents)
    mark(1)


def check_build(shop: FakeShop, root: Path, marked: int) -> None:
    """Check that the index is complete.

    If the build was not acknowledged, the index may also be absent or recognizably unfinished.
    """
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
    """Check that the index has the state before or after the operation in progress.

    If the backup was acknowledged, it must be complete.
    """
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
    """Check that the index contains all acknowledged changes and, if it was acknowledged, the added relation."""
    none: list[list[Change]] = []
    one, two = STEPS[:1], STEPS[:2]
    is_one_of(root / "index", shop, *[(none, one), (one,), (one, two), (two,)][marked])
    index = Index.open(root / "index", shop.checkpoint)
    index.close()
    assert SAILORS in index.relations or marked < 2, "the relation is lost"


WORK: Mapping[str, Work] = {
    "changes": Work(begin_changes, do_changes, check_changes),
    "acknowledged": Work(begin_changes, do_acknowledged, check_acknowledged),
    "build": Work(begin_build, do_build, check_build),
    "copy": Work(begin_copy, do_copy, check_copy),
    "relation": Work(begin_relation, do_relation, check_relation),
}


def is_one_of(path: Path, shop: FakeShop, *allowed: list[list[Change]]) -> None:
    """Check that the index at `path` opens, and that its contents result from one of the `allowed` lists of steps."""
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
        # The operation was not acknowledged, so it is sufficient that it can be repeated.
        if path.exists() and not any(one.name.startswith("generation-") for one in path.iterdir()):
            return
        assert not path.exists(), f"{path} exists but is incomplete"


def traced(folder: Path, work: Work) -> tuple[FakeShop, Disk, list[Event]]:
    """Run the operation, and return the shop, the disk and the traced events."""
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
    """Return what is wrong with one disk state; an empty string if it is valid."""
    tree.write(place)
    try:
        work.check(shop, place, marked)
    except (AssertionError, RcmlError) as error:
        return f"after mark {marked}: {error!r}"
    finally:
        shutil.rmtree(place)
    return ""


def endure(folder: str, name: str, each: str) -> None:
    """Check that every disk state that a power failure may leave behind is valid.

    `each` is the number of disk states to try at each moment, or "all".
    """
    base, work = Path(folder), WORK[name]
    shop, disk, _ = traced(base, work)
    tried = 0
    for marked, tree in disk.after_failures(each=int(each) if each != "all" else None):
        assert not (said := complaint(work, shop, base / "disk", marked, tree)), said
        tried += 1
    print(f"{name}: {tried} disk states")


def ours(events: list[Event], root: Path) -> dict[str, frozenset[int]]:
    """Return the positions of the fsyncs in `events`, grouped by a description of what is synced."""
    places: dict[str, set[int]] = {}
    for at, event in enumerate(events):
        if event.operation == "sync":
            places.setdefault(_place(events, at, root), set()).add(at)
    return {place: frozenset(found) for place, found in places.items()}


def _place(events: list[Event], at: int, root: Path) -> str:
    path = Path(events[at].path)
    if ".partial" in path.name:
        return "the staging folder"
    if ".partial" in events[at].path:
        return "the staged files"
    if MARK_FILE in path.name:
        return "a new mark" if path.name.startswith(".") else "the mark"
    if "changes.sqlite" in path.name:
        return "a new journal file" if path.name.startswith(".") else "the journal"
    before = next((one.operation for one in reversed(events[:at]) if one.operation in _FOLDER_OF), "")
    return _FOLDER_OF[before]


_FOLDER_OF = {
    "": "the parent of the log of SQLite",
    "mkdir": "the parent of a new folder",
    "rename": "the parent of a renamed folder",
    "link": "the parent of a new journal",
    "remove": "the parent of a new journal",
}

NEEDED = {
    "build": {
        "the parent of a new folder",
        "the staged files",
        "the staging folder",
        "the parent of a renamed folder",
        "a new journal file",
        "a new mark",
    },
    "copy": {"the parent of a renamed folder"},
    "relation": {"the parent of a renamed folder"},
    "changes": {"the journal"},
    "acknowledged": {"the mark"},
}
"""Files and folders that each operation must fsync.

"changes" contains no fsync of a new generation: if the new generation is lost, the previous generation and the journal
yield the same index.
"""


def miss(folder: str, name: str, each: str) -> None:
    """Check for each entry in `NEEDED` that leaving out its fsyncs makes some disk state invalid."""
    base, work = Path(folder), WORK[name]
    shop, disk, events = traced(base, work)
    places = ours(events, base / "root")
    assert places.keys() >= NEEDED[name]
    for place in NEEDED[name]:
        assert any(complaints(work, shop, disk, base, places[place], int(each))), (
            f"the fsync of {place} is unnecessary"
        )


def miss_each(folder: str, name: str) -> None:
    """Check for each file and folder that leaving out our last fsync makes some disk state invalid.

    Later fsyncs of the same folder by SQLite are left out too: they would hide that ours is missing.
    """
    base, work = Path(folder), WORK[name]
    shop, disk, events = traced(base, work)
    last = {events[at].path: at for at in disk.syncs() if not _protects_nothing(events, at)}
    assert len(last) > 30
    for path, at in last.items():
        left_out = frozenset(later for later in disk.syncs() if later >= at and events[later].path == path)
        assert any(complaints(work, shop, disk, base, left_out, 8)), f"the fsync of {path} is unnecessary"


def _protects_nothing(events: list[Event], at: int) -> bool:
    """Return whether an fsync protects nothing in a build, which makes no changes.

    SQLite syncs the catalogue before we do, and its log of no changes, with their folder. The mark still says 0.
    """
    names = {Path(event.path).name for event in events[at - 1 : at + 1] if event.operation == "sync"}
    return Path(events[at].path).name == MARK_FILE or any(
        name.startswith(("catalogue.sqlite", JOURNAL_FILE)) for name in names
    )


def complaints(
    work: Work, shop: FakeShop, disk: Disk, base: Path, without: frozenset[int], each: int | None = None
) -> Iterator[str]:
    """Yield the `complaint` about each disk state that is possible without the fsyncs at the positions `without`.

    The latest disk states come first, because they are the most likely to lack data that was never synced. Changes
    are an exception: the earliest disk states come first, because a later compaction hides the loss of earlier data.
    """
    disks = disk.after_failures(without, each)
    for marked, tree in disks if work is WORK["changes"] else reversed(list(disks)):
        yield complaint(work, shop, base / "disk", marked, tree)


@pytest.mark.parametrize("work", WORK)
def test_index_is_valid_after_power_failure_at_any_moment(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:endure", tmp_path, work, 1)


@pytest.mark.parametrize("work", WORK)
def test_index_is_damaged_by_power_failure_if_fsyncs_are_missing(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:miss", tmp_path, work, 8)


@pytest.mark.soak
@pytest.mark.parametrize("work", WORK)
def test_index_is_valid_in_all_disk_states_after_power_failure(work: str, tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:endure", tmp_path, work, "all")


@pytest.mark.soak
def test_index_is_damaged_by_power_failure_if_any_fsync_of_build_is_missing(tmp_path: Path) -> None:
    run_watched("tests.indexes.durability.test_power_loss:miss_each", tmp_path, "build")
