"""Enumeration of the disk states that a power failure can leave, from a trace of the disk operations of a process.

The model is the harshest that POSIX allows. Data is durable only after an fsync of its file, and a folder entry only
after an fsync of the folder. Until then, any subset of the operations can be on the disk, in any order. A write can
also be half complete, or contain zeros (Pillai et al. 2014, All file systems are not created equal).
"""

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

SECTOR = 512

Operation = Literal["create", "write", "truncate", "link", "rename", "remove", "mkdir", "sync", "mark"]


@dataclass(frozen=True)
class Event:
    """Operation in a trace.

    For a mark, `inode` is the number of the mark. For a truncation, `offset` is the new length.
    """

    operation: str
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def read_trace(path: Path) -> list[Event]:
    """Read the trace that `interposer.c` wrote."""
    content, events, at = path.read_bytes(), [], 0
    while at < len(content):
        end = content.index(b"\n", at)
        operation, inode, offset, length, name, other = content[at:end].decode().split("\t")
        size = int(length) if operation == "write" else 0
        events.append(
            Event(operation, int(inode), int(offset), name, other, content[end + 1 : end + 1 + size])
        )
        at = end + 1 + size
    return events


class Impossible(Exception):
    """Error raised if a disk state is impossible, because an operation depends on another that is missing."""


@dataclass
class Tree:
    """File contents and folder entries. Files and folders are identified by numbers, and the root has number 0."""

    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})

    @classmethod
    def of(cls, root: Path) -> tuple["Tree", dict[int, int]]:
        """Read the tree below `root`, and return it with a map from inodes to the numbers in the tree."""
        tree = cls()
        numbers = {root.stat().st_ino: 0}
        for place, folders, files in os.walk(root):
            own = tree.folders[numbers[Path(place).stat().st_ino]]
            for name in (*folders, *files):
                path = Path(place) / name
                number = numbers.setdefault(path.stat().st_ino, len(numbers))
                own[name] = number
                if name in folders:
                    tree.folders[number] = {}
                else:
                    tree.files[number] = path.read_bytes()
        return tree, numbers

    def copy(self) -> "Tree":
        return Tree(dict(self.files), {number: dict(names) for number, names in self.folders.items()})

    def write(self, target: Path, number: int = 0) -> None:
        """Write the tree to the real folder `target`."""
        target.mkdir()
        for name, child in self.folders[number].items():
            if child in self.folders:
                self.write(target / name, child)
            else:
                (target / name).write_bytes(self.files.get(child, b""))

    def key(self, number: int = 0) -> int:
        """Return a hash of the contents, which is equal for equal trees."""
        return hash(
            tuple(
                (name, self.key(child) if child in self.folders else self.files.get(child, b""))
                for name, child in sorted(self.folders[number].items())
            )
        )


@dataclass(frozen=True)
class Step:
    """Operation on a tree: a change of folder entries, or of the data of `file`.

    `entries` contains (folder, name, number) tuples that are applied together. If the number is None, the entry is
    removed.
    """

    entries: tuple[tuple[int, str, int | None], ...] = ()
    isnew: Literal["file", "folder", ""] = ""
    moves_folder: bool = False
    file: int = -1
    offset: int = 0
    data: bytes | None = None  # None: truncate to `offset`

    @property
    def home(self) -> int:
        """Number of the file or folder whose fsync makes this operation durable."""
        return self.entries[0][0] if self.entries else self.file

    def apply(self, tree: Tree) -> None:
        for folder, name, number in self.entries:
            names = tree.folders.setdefault(folder, {})  # the folder can exist before the entry in its parent
            if number is None:
                names.pop(name, None)
                continue
            if self.isnew == "folder":
                tree.folders.setdefault(number, {})
            elif self.moves_folder and number not in tree.folders:
                raise Impossible
            old = names.get(name)
            if old is not None and old != number and tree.folders.get(old):
                raise Impossible
            names[name] = number
        if self.file >= 0:
            content = tree.files.get(self.file, b"").ljust(self.offset, b"\0")
            if self.data is None:
                tree.files[self.file] = content[: self.offset]
            else:
                tree.files[self.file] = (
                    content[: self.offset] + self.data + content[self.offset + len(self.data) :]
                )

    def harmed(self) -> Iterator["Step"]:
        """Yield this write as half complete and as zeros."""
        if self.data:
            half = max(len(self.data) // 2 // SECTOR * SECTOR, min(SECTOR, len(self.data) // 2))
            yield replace(self, data=self.data[:half])
            yield replace(self, data=bytes(len(self.data)))


class Disk:
    """Initial tree, and the operations on it since then."""

    def __init__(self, root: Path) -> None:
        """Read the current tree below `root`."""
        self._root = root
        self._start, self._numbers = Tree.of(root)

    def replay(self, events: Sequence[Event]) -> None:
        """Convert the events since the initial tree into steps."""
        live = self._start.copy()
        numbers, fresh = dict(self._numbers), len(self._numbers) + 1
        self.steps: list[Step | int | None] = []
        self.marks: list[int | None] = []
        for event in events:
            step: Step | int | None = None
            mark = None
            match event.operation:
                case "create" | "mkdir":
                    numbers[event.inode] = fresh
                    folder, name = self._place(live, event.path)
                    step = Step(((folder, name, fresh),), "file" if event.operation == "create" else "folder")
                    fresh += 1
                case "write":
                    step = Step(file=numbers[event.inode], offset=event.offset, data=event.data)
                case "truncate":
                    step = Step(file=numbers[event.inode], offset=event.offset)
                case "link":
                    step = Step(((*self._place(live, event.other), numbers[event.inode]),))
                case "rename":
                    step = Step(
                        (
                            (*self._place(live, event.other), numbers[event.inode]),
                            (*self._place(live, event.path), None),
                        ),
                        moves_folder=numbers[event.inode] in live.folders,
                    )
                case "remove":
                    step = Step(((*self._place(live, event.path), None),))
                case "sync":
                    step = numbers[event.inode]
                case "mark":
                    mark = event.inode
            if isinstance(step, Step):
                step.apply(live)
            self.steps.append(step)
            self.marks.append(mark)
        self._folders = frozenset(live.folders)

    def syncs(self) -> list[int]:
        """Return the positions of the events that are fsyncs."""
        return [at for at, step in enumerate(self.steps) if isinstance(step, int)]

    def after_failures(
        self, without: frozenset[int] = frozenset(), each: int | None = None
    ) -> Iterator[tuple[int, Tree]]:
        """Yield the disk states that power failures can leave, each with the last mark before the failure.

        Power failures are simulated before each fsync, before each mark and at the end. Failures at other times are
        covered, because every state that they can leave is also possible just before the next fsync or mark. The
        fsyncs at the positions `without` are ignored. `each` limits the states per failure to a random sample.
        """
        sure, pending = self._start.copy(), list[Step]()
        marked = 0
        seen: set[tuple[int, int]] = set()
        for at in range(len(self.steps) + 1):
            step = self.steps[at] if at < len(self.steps) else None
            if isinstance(step, Step):
                pending.append(step)
                continue
            for tree in _left(sure, pending, at, each):
                if (key := (marked, tree.key())) not in seen:
                    seen.add(key)
                    yield marked, tree
            if isinstance(step, int) and at not in without:
                for one in pending:
                    if one.home == step:
                        one.apply(sure)
                if step in self._folders:
                    sure.folders.setdefault(step, {})
                pending = [one for one in pending if one.home != step]
            if at < len(self.steps) and (mark := self.marks[at]) is not None:
                marked = mark

    def _place(self, live: Tree, path: str) -> tuple[int, str]:
        *folders, name = Path(path).relative_to(self._root).parts
        number = 0
        for folder in folders:
            number = live.folders[number][folder]
        return number, name


def _left(sure: Tree, pending: list[Step], at: int, each: int | None) -> Iterator[Tree]:
    rng = random.Random(at)
    found = list(_subsets(pending, rng))
    for chosen in found if each is None or len(found) <= each else rng.sample(found, each):
        tree = sure.copy()
        try:
            for step in chosen:
                step.apply(tree)
        except Impossible:
            continue
        yield tree


def _subsets(pending: list[Step], rng: random.Random) -> Iterator[list[Step]]:
    """Yield subsets of the pending steps that may be on the disk: all subsets of up to 6 steps, a sample for more."""
    if len(pending) <= 6:
        for chosen in range(2 ** len(pending)):
            yield [one for place, one in enumerate(pending) if chosen >> place & 1]
    else:
        for place in range(len(pending) + 1):
            yield pending[:place]
            yield [*pending[:place], *pending[place + 1 :]]
        for step in pending:
            yield [step]
        for _ in range(20):
            yield [step for step in pending if rng.random() < 0.5]
    for home in dict.fromkeys(step.home for step in pending):  # all steps except those of one file or folder
        yield [step for step in pending if step.home != home]
    for place, step in enumerate(pending):
        for harmed in step.harmed():
            yield [*pending[:place], harmed, *pending[place + 1 :]]
            yield [*pending[:place], harmed]
