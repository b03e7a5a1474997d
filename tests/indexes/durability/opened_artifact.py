"""Process that opens artifacts on request and says what came of it, so that a test survives a hang or a full memory.

Each line of the input is the kind and the path of an artifact. Each line of the output is JSON: `read`, a digest of
everything that was read; or `refused`, the message of an `RcmlError`; or `raised`, any other error.
"""

import hashlib
import json
import resource
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from indexes.index import Index
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.relation_quality import Quality
from model.data.prepared_data import Prepared
from model.errors import DamagedPictureError, RcmlError
from model.similarity import Similarity, View

MAX_BYTES = 8 * 2**30
"""Maximum address space of the process. A file without end must not use up the memory of the machine."""

TIMEOUT_S = 120
"""Time after which a process counts as hung. Opening an artifact of a test takes some hundredths of a second."""


def index(path: Path) -> Iterator[object]:
    """Yield all vectors, answers and pictures of an index; for a damaged picture, its item."""
    opened = Index.open(path)
    try:
        generation, snapshot = opened.snapshot.generation, opened.snapshot
        items = [item for _, item in snapshot.page(0, 1_000)]
        yield items
        for relation in range(len(generation.relations)):
            for view in View:
                yield generation.vectors.vectors(relation, view, range(len(generation.catalogue))).tobytes()
            for similarity in Similarity:
                table = generation.answers.table(relation, similarity)
                yield None if table is None else table.tobytes()
        if generation.tokens is not None:
            yield generation.tokens.tokens.text.states.tobytes()
        yield [generation.attributes.numbers, len(generation.attributes)]
        yield [one for one in items if one.picture and _picture(opened, one.item_id) is None]
    finally:
        opened.close()


def _picture(opened: Index, item_id: str) -> bytes | None:
    try:
        content = opened.picture(item_id).content
    except DamagedPictureError:
        return None
    return content if isinstance(content, bytes) else content.read_bytes()


def checkpoint(path: Path) -> Iterator[object]:
    """Yield the contents of a checkpoint that serving reads."""
    found = Checkpoint.open(path)
    yield from (found.manifest, found.config, found.relations, found.calibration, found.metrics)
    yield found.relation_vectors.tobytes()
    yield found.validity.weight_1.tobytes()


def card(path: Path) -> Iterator[object]:
    """Yield the model card of a checkpoint."""
    yield Checkpoint.open(path).card


def prepared(path: Path) -> Iterator[object]:
    """Yield the items and edges of prepared data."""
    found = Prepared.open(path)
    yield from (
        found.items,
        found.splits,
        found.relations,
        found.edges,
        found.edges_across,
        found.composition,
    )


def report(path: Path) -> Iterator[object]:
    """Yield the figures of a report."""
    yield Quality.open(path, "of").relations


READERS = {one.__name__: one for one in (index, checkpoint, card, prepared, report)}


def outcome(kind: str, path: Path) -> dict[str, str]:
    """Open an artifact and read it."""
    try:
        digest = hashlib.sha256()
        for part in READERS[kind](path):
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
    except RcmlError as error:
        return {"refused": str(error)}
    except BaseException:  # the test prints it
        return {"raised": traceback.format_exc()}
    return {"read": digest.hexdigest()}


class Opener:
    """A running process that opens artifacts; see `opener`."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process, self._lines = process, SimpleQueue[str]()
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def open(self, kind: str, path: Path) -> dict[str, str]:
        """Open an artifact in the process, and return what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {path}\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=TIMEOUT_S)
        except Empty:
            return {"raised": f"opening took more than {TIMEOUT_S} s"}
        found: dict[str, str] = json.loads(line) if line else {"raised": "the process was killed"}
        return found


@contextmanager
def opener() -> Iterator[Opener]:
    """Start a process that opens artifacts."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Opener(process)
        finally:
            process.kill()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    for asked in sys.stdin:
        chosen, _, name = asked.rstrip("\n").partition(" ")
        print(json.dumps(outcome(chosen, Path(name))), flush=True)
