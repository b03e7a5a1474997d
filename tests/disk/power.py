"""Every disk that a power failure may leave behind, from a trace of what a process did to it.

The model is the harshest that POSIX allows. What was written is sure to be on the disk once the file was synced,
and an entry of a folder once the folder was; until then each may be there or not, in any order, and a write may
be there by half or as zeros. (Pillai et al. 2014, All file systems are not created equal.)
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
    """One thing that was done; `inode` is the number of a mark, `offset` the length of a truncated file."""

    operation: str
    inode: int
    offset: int
    path: str
    other: str
    data: bytes


def read_trace(path: Path) -> list[Event]:
    """The events that `interposer.c` wrote."""
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
    """No disk can be so: an operation needs one that is missing."""


@dataclass
class Tree:
    """Files and folders by number; folder 0 is the root."""

    files: dict[int, bytes] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})

    @classmethod
    def of(cls, root: Path) -> tuple["Tree", dict[int, int]]:
        """What is below `root`, and the number of each inode."""
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
        """Put it on a real disk at `target`."""
        target.mkdir()
        for name, child in self.folders[number].items():
            if child in self.folders:
                self.write(target / name, child)
            else:
                (target / name).write_bytes(self.files.get(child, b""))

    def key(self, number: int = 0) -> int:
        """Equal for equal trees."""
        return hash(
            tuple(
                (name, self.key(child) if child in self.folders else self.files.get(child, b""))
                for name, child in sorted(self.folders[number].items())
            )
        )


@dataclass(frozen=True)
class Step:
    """An event in numbers: `entries` are (folder, name, number or None), applied together; or data of `file`."""

    entries: tuple[tuple[int, str, int | None], ...] = ()
    isnew: Literal["file", "folder", ""] = ""
    moves_folder: bool = False
    file: int = -1
    offset: int = 0
    data: bytes | None = None  # None: cut to `offset`

    @property
    def home(self) -> int:
        """What must be synced for this to be sure."""
        return self.entries[0][0] if self.entries else self.file

    def apply(self, tree: Tree) -> None:
        for folder, name, number in self.entries:
            names = tree.folders.setdefault(folder, {})  # which may be there, and in no other folder yet
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
        """A write that is there by half, or as zeros."""
        if self.data:
            half = max(len(self.data) // 2 // SECTOR * SECTOR, min(SECTOR, len(self.data) // 2))
            yield replace(self, data=self.data[:half])
            yield replace(self, data=bytes(len(self.data)))


class Disk:
    """A tree, and what was done to it since, step by step."""

    def __init__(self, root: Path) -> None:
        """Begin with what is below `root` now."""
        self._root = root
        self._start, self._numbers = Tree.of(root)

    def replay(self, events: Sequence[Event]) -> None:
        """Take the events that followed, whose paths are below the root."""
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
        """Which of the events are syncs."""
        return [at for at, step in enumerate(self.steps) if isinstance(step, int)]

    def after_failures(
        self, without: frozenset[int] = frozenset(), each: int | None = None
    ) -> Iterator[tuple[int, Tree]]:
        """Every disk there may be, with the last mark before the power failed; some syncs never happened.

        The power fails before each sync, at each mark and at the end: what may be there at any other moment may
        be there at the next of these. Of the disks of one moment, `each` are drawn.
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
    """What of the pending steps may be on the disk: all subsets of few; of many, those that tell most."""
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
    for home in dict.fromkeys(step.home for step in pending):  # all but what belongs to one file or folder
        yield [step for step in pending if step.home != home]
    for place, step in enumerate(pending):
        for harmed in step.harmed():
            yield [*pending[:place], harmed, *pending[place + 1 :]]
            yield [*pending[:place], harmed]
