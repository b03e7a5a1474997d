"""An index on a whole Milvus and on Postgres answers like one in files, also while Milvus is killed and restarted."""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pymilvus import MilvusClient

from indexes.builder.build import build
from indexes.config import BuildConfig, IndexKind
from indexes.index import Index
from indexes.journal.change import Change
from indexes.storage.layout import generations
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.errors import UnreachableError
from model.similarity import Similarity
from tests.indexes.changes import made
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.indexes.milvus_server import MilvusServer
from tests.indexes.postgres_server import Server

pytestmark = pytest.mark.milvus

CHANGES = 1_000
"""Number of changes made to the index."""

Question = tuple[str, str, Similarity, int]
Answer = list[tuple[str, float]]


def answer(index: Index, question: Question) -> Answer:
    """Return the IDs and scores of a query's results."""
    return [(hit.item.item_id, hit.score) for hit in index.reader().neighbours(*question)]


def questions(index: Index) -> list[Question]:
    """Return a query for every item, relation and similarity, in random order."""
    items = [item.item_id for _, item in index.snapshot.page(0, 10_000)]
    found = [
        (item, relation.relation_id, similarity, k)
        for item in items
        for relation in index.relations
        for similarity, k in zip(Similarity, (1, 3, 10, 50, 1_000), strict=True)
    ]
    random.Random(0).shuffle(found)
    return found


class Asking:
    """A thread that asks queries until it is stopped, and counts equal, wrong and refused answers."""

    def __init__(self, index: Index, twin: Index) -> None:
        self.seen: Counter[str] = Counter()
        # Precomputed answers do not ask Milvus.
        asked = [
            one for one in questions(twin) if one[2] not in twin.snapshot.generation.answers.similarities
        ]
        self._expected = [(question, answer(twin, question)) for question in asked[:300]]
        self._index = index
        self._stopped = Event()
        self._thread = Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._stopped.is_set():
            for question, expected in self._expected:
                try:
                    found = answer(self._index, question)
                except UnreachableError:
                    self.seen["refused"] += 1
                else:
                    self.seen["equal" if found == expected else "wrong"] += 1
                if self._stopped.is_set():
                    return

    def wait(self, kind: str, more: int) -> None:
        """Wait for `more` answers of a kind."""
        enough = self.seen[kind] + more
        while self.seen[kind] < enough and self._thread.is_alive():
            self._stopped.wait(0.01)
        assert self._thread.is_alive(), "a query failed with another error"

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        self._thread.join()


def persisted(ask: Callable[[], Any]) -> Any:
    """Call `ask` until Milvus answers; the test's timeout ends it otherwise."""
    while True:
        try:
            return ask()
        except UnreachableError:
            Event().wait(0.1)


def built(shop: FakeShop, out: Path, **places: Any) -> Index:
    options = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=out, **places)
    persisted(
        lambda: build(options, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    )
    return Index.open(out)


@pytest.mark.parametrize("kind", ["flat", "ivf-flat"])
def test_answers_equal_those_of_files_through_changes_compactions_and_two_kills(
    shop: FakeShop,
    tmp_path: Path,
    milvus: MilvusServer,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
    kind: IndexKind,
) -> None:
    """The ivf-flat index is built to a recall of 1, because a lower recall permits other results."""
    monkeypatch.setattr("indexes.vectors.milvus.milvus_writer.MAX_SCANNED_ITEMS", 0)
    options = {"kind": kind, "min_recall": 0.9999}
    twin = built(shop, tmp_path / "twin")
    replica = built(shop, tmp_path / "index", vectors=milvus.uri, journal=postgres.url(), **options)
    other = Index.open(tmp_path / "index")
    seen: Counter[str] = Counter()
    for half in range(2):
        for start in range(half * CHANGES // 2, (half + 1) * CHANGES // 2, 50):
            numbers = range(start, start + 50)
            batch = [Change(f"new-{n % 150}") if n % 4 == 3 else made(f"new-{n % 150}", n) for n in numbers]
            twin.apply(batch)
            (replica, other)[start // 50 % 2].apply(batch)
        persisted(replica.refresh)
        replica.compact()
        twin.compact()
        persisted(other.refresh)
        asking = Asking(other, twin)
        try:
            asking.wait("equal", 50)
            milvus.stop()
            asking.wait("refused", 50)
            milvus.start()
            asking.wait("equal", 600)
        finally:
            asking.stop()
        seen += asking.seen
    assert seen["wrong"] == 0
    for index in (replica, other):
        for question in questions(twin):
            assert persisted(partial(answer, index, question)) == answer(twin, question)
            seen["compared"] += 1
    assert {path.name for path in generations(tmp_path / "index")} == {
        "generation-000002",
        "generation-000003",
    }
    print(f"{kind}: {dict(seen)}")
    for index in (twin, replica, other):
        index.close()


@pytest.mark.parametrize(
    "method", ["create_collection", "insert", "flush", "create_index", "load_collection", "query"]
)
def test_build_interrupted_by_kill_leaves_served_generation_and_can_be_repeated(
    shop: FakeShop, tmp_path: Path, milvus: MilvusServer, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """The server is killed at the second call of a method, while it works on the second collection of the build."""
    replica, twin = built(shop, tmp_path / "index", vectors=milvus.uri), built(shop, tmp_path / "twin")
    change = made("new", 1)
    replica.apply([change])
    twin.apply([change])
    client = MilvusClient(milvus.uri)
    before = set(client.list_collections())
    calls, run = 0, getattr(MilvusClient, method)

    def kill(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            milvus.stop()
        return run(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(MilvusClient, method, kill)
        with pytest.raises(UnreachableError, match=r"^Milvus at \S+ is unavailable .*\. Start it, or check"):
            replica.compact()
    assert [path.name for path in generations(tmp_path / "index")] == ["generation-000001"]
    with pytest.raises(UnreachableError):
        answer(replica, ("red-mug", "gardeners", Similarity.TT, 3))
    milvus.start()
    persisted(replica.compact)
    for question in questions(twin)[:100]:
        assert persisted(partial(answer, replica, question)) == answer(twin, question)
    kept = {name.rpartition("_")[0] for name in set(client.list_collections()) - before}
    assert len(kept) == 1, "the collections of the interrupted build were dropped"
    client.close()
    replica.close()
    twin.close()
