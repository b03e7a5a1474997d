"""An index with its vectors in Milvus returns exact results, drops unused collections, and reports damage clearly."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from pydantic import ValidationError
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from indexes.admin.backup import restore, snapshot
from indexes.admin.inspection import stats, verify
from indexes.builder.build import build
from indexes.config import (
    MILVUS_KINDS,
    BuildConfig,
    IndexKind,
    RestoreConfig,
    SnapshotConfig,
    StatsConfig,
    VerifyConfig,
)
from indexes.index import Index
from indexes.journal.change import Change
from indexes.storage.layout import generations
from indexes.vectors.backends import open_vectors
from indexes.vectors.milvus.milvus_backend import MilvusVectors
from indexes.vectors.milvus.milvus_collections import MILVUS_FILE, Place
from indexes.vectors.milvus.milvus_writer import write_milvus
from model.checkpoint.checkpoint import Checkpoint
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.errors import ArtifactError, InputError, UnreachableError
from model.similarity import Similarity, View
from tests.indexes.changes import Expected, made, placed
from tests.indexes.durability.test_crashes import CLEAN
from tests.indexes.fakes import FakeEncoder, FakeShop
from tests.indexes.milvus_server import MilvusServer, server, standalone

from .test_contract import DIM, ITEMS, RELATIONS, reference, source, tied

Answer = TypeVar("Answer")


@pytest.fixture
def folder(shop: FakeShop, tmp_path: Path, milvus_server: str) -> Path:
    """Create an index in a folder with a name that is not valid for a collection."""
    base = tmp_path / "Läden & Söhne"
    base.mkdir()
    return placed(shop, base, vectors=milvus_server)


@pytest.fixture
def index(folder: Path) -> Iterator[Index]:
    index = Index.open(folder)
    yield index
    index.close()


@pytest.fixture
def client(milvus_server: str) -> Iterator[MilvusClient]:
    client = MilvusClient(milvus_server)
    yield client
    client.close()


def place(generation: Path) -> Place:
    return Place.model_validate_json((generation / "vectors" / MILVUS_FILE).read_bytes())


def collections(client: MilvusClient, folder: Path) -> set[str]:
    """Return the common names of the collections that the index folder records and that still exist in Milvus."""
    noted = {
        re.search(r'"collection":"(\w+)"', path.read_text())[1]  # type: ignore[index]
        for path in folder.glob(".generation-*.collection")
    }
    return noted & {name.rpartition("_")[0] for name in client.list_collections()}


def persisted(ask: Callable[[], Answer]) -> Answer:
    """Retry `ask` as a server would, because gRPC waits before it reconnects a broken connection."""
    begun = time.monotonic()
    while time.monotonic() - begun < 600:
        with suppress(UnreachableError, MilvusException):
            return ask()
        time.sleep(0.1)
    return ask()


def config(shop: FakeShop, out: Path, uri: str) -> BuildConfig:
    return BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=out, vectors=uri)


def parents(shop: FakeShop) -> tuple[Checkpoint, Prepared]:
    return Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared)


def test_returns_correct_results_after_build_changes_and_compaction(
    shop: FakeShop, tmp_path: Path, milvus_server: str
) -> None:
    out = tmp_path / "index"
    build(config(shop, out, milvus_server), FakeEncoder(), *parents(shop))
    index, expected = Index.open(out), Expected(shop)
    assert index.snapshot.generation.answers.similarities != ()
    expected.check(index)
    for n in range(3):
        changes = [made(f"new-{n}", n), Change("cot"), made("bib", n)]
        index.apply(changes)
        expected.apply(*changes)
        expected.check(index)
        index.compact()
        expected.check(index)
    assert not list(out.rglob("*.faiss"))
    assert "is intact: 14 items" in verify(VerifyConfig(index=out))
    said = stats(StatsConfig(index=out))
    assert re.search(rf"^vectors stored in +{milvus_server}$", said, re.MULTILINE)
    assert re.search(r"^kind +flat$", said, re.MULTILINE)
    index.close()


def test_collection_has_valid_name_and_documented_schema(folder: Path, client: MilvusClient) -> None:
    kept = place(generations(folder)[-1])
    assert re.fullmatch(r"rcml_index_000001_[0-9a-f]{12}", kept.collection)
    assert (kept.count, kept.dim, kept.relations) == (12, 16, 4)
    partitions = [f"relation_{number:03d}" for number in range(4)]
    for name in ("text", "image", "average"):
        collection = f"{kept.collection}_{name}"
        described = client.describe_collection(collection)
        assert described["consistency_level_name"] == "Strong"
        assert [field["name"] for field in described["fields"]] == ["place", "vector"]
        assert sorted(client.list_partitions(collection)) == ["_default", *partitions]
        index = client.describe_index(collection, "vector")
        assert (index["index_type"], index["metric_type"]) == ("FLAT", "IP")


def test_keeps_collections_of_two_generations(index: Index, folder: Path, client: MilvusClient) -> None:
    for n in range(4):
        index.apply([made(f"new-{n}", n)])
        index.compact()
    kept = generations(folder)
    assert len(kept) == 2
    assert collections(client, folder) == {place(path).collection for path in kept}
    assert len(list(folder.glob(".*.collection"))) == 2


def test_does_not_drop_collection_that_is_still_in_use(
    index: Index, folder: Path, shop: FakeShop, client: MilvusClient
) -> None:
    other = Index.open(folder)
    for n in range(3):
        other.apply([made(f"new-{n}", n)])
        other.compact()
    assert len(collections(client, folder)) == 3
    assert index.snapshot.generation.path.name == "generation-000001"
    Expected(shop).check(index)
    index.close()
    other.apply([made("last", 9)])
    other.compact()
    assert len(collections(client, folder)) == 2
    other.close()


def build_and_die(options: BuildConfig, shop: FakeShop) -> None:
    """Build an index and kill the process when the collection is filled but no generation refers to it yet."""
    pytest.MonkeyPatch().setattr(
        "indexes.builder.build.write_precomputed", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    )
    build(options, FakeEncoder(), *parents(shop))


def test_build_drops_collection_of_killed_build(
    shop: FakeShop, tmp_path: Path, milvus_server: str, client: MilvusClient
) -> None:
    before = set(client.list_collections())
    options = config(shop, tmp_path / "index", milvus_server)
    child = CLEAN.Process(target=build_and_die, args=(options, shop))
    child.start()
    child.join(600)
    assert child.exitcode == -signal.SIGKILL
    orphans = set(client.list_collections()) - before
    assert len(orphans) == 3
    build(options, FakeEncoder(), *parents(shop))
    kept = set(client.list_collections()) - before
    assert not kept & orphans
    assert kept == {place(generations(options.out)[-1]).view(view) for view in View}
    index = Index.open(options.out)
    Expected(shop).check(index)
    index.close()


def test_interrupted_build_leaves_no_collection(
    shop: FakeShop, tmp_path: Path, milvus_server: str, client: MilvusClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = set(client.list_collections())
    monkeypatch.setattr("indexes.builder.build.write_precomputed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(config(shop, tmp_path / "index", milvus_server), FakeEncoder(), *parents(shop))
    assert set(client.list_collections()) == before
    assert not list(tmp_path.glob("index/.*.collection"))


def test_reports_missing_collection_with_remedy(
    index: Index, folder: Path, client: MilvusClient, milvus_server: str
) -> None:
    kept = place(generations(folder)[-1])
    client.drop_collection(kept.view(View.AVERAGE))
    said = rf"{kept.collection}_average in Milvus at {milvus_server} does not exist\. Restore a backup, or rebuild"
    with pytest.raises(ArtifactError, match=said):
        Index.open(folder)


def test_reports_collection_with_wrong_count_or_shape(folder: Path, client: MilvusClient) -> None:
    generation = generations(folder)[-1]
    kept = place(generation)
    client.delete(kept.view(View.IMAGE), ids=[1])
    with pytest.raises(
        ArtifactError, match=r"_image in Milvus at .* has 47 rows, not 12 for each of 4 relations"
    ):
        open_vectors(generation / "vectors")
    other = kept.model_copy(update={"dim": 17})
    (generation / "vectors" / MILVUS_FILE).write_text(other.model_dump_json())
    with pytest.raises(ArtifactError, match=r"has vector fields {'vector': 16}, not {'vector': 17}"):
        open_vectors(generation / "vectors")


def test_uses_previous_generation_if_newest_collection_is_lost(
    index: Index, folder: Path, shop: FakeShop, client: MilvusClient, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = Expected(shop)
    changes = [made("new", 1), Change("cot")]
    index.apply(changes)
    expected.apply(*changes)
    index.compact()
    client.drop_collection(place(generations(folder)[-1]).view(View.TEXT))
    again = Index.open(folder)
    expected.check(again)
    again.close()
    assert "Using generation-000001 and the changes made since then." in capsys.readouterr().err


@pytest.mark.parametrize("run", [server, pytest.param(standalone, marks=pytest.mark.milvus)])
def test_reports_unavailable_server_and_recovers(
    shop: FakeShop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[Path], AbstractContextManager[MilvusServer]],
) -> None:
    monkeypatch.setattr("indexes.vectors.milvus.milvus_collections.REQUEST_TIMEOUT_S", 4.0)
    with run(tmp_path) as running:
        folder = placed(shop, tmp_path, vectors=running.uri)
        index, other = Index.open(folder), Index.open(folder)
        other.apply([made("new", 1)])
        other.compact()
        running.stop()
        said = rf"Milvus at {running.uri} is unavailable .*\. Start it, or check the network connection"
        query = np.ones(16, np.float32) / 4
        with pytest.raises(UnreachableError, match=said):
            index.reader().search(query, "gardeners", View.TEXT, 3)
        with pytest.raises(UnreachableError, match=said):
            index.refresh()
        with pytest.raises(UnreachableError, match=said):
            build(config(shop, tmp_path / "new", running.uri), FakeEncoder(), *parents(shop))
        assert not (tmp_path / "new").exists()
        running.start()
        persisted(index.refresh)
        assert index.snapshot.generation.path.name == "generation-000002"
        expected = Expected(shop)
        expected.apply(made("new", 1))
        persisted(lambda: expected.check(index))
        index.close()
        other.close()


def test_loads_released_collections_again(
    index: Index, folder: Path, shop: FakeShop, client: MilvusClient
) -> None:
    """A server may release collections, as milvus-lite does at a restart; one read fails, the next one loads them."""
    kept = place(generations(folder)[-1])
    for view in View:
        client.release_collection(kept.view(view))
    with pytest.raises(UnreachableError):
        index.reader().neighbours("red-mug", "gardeners", Similarity.TT, 3)
    Expected(shop).check(index)


def test_read_after_outage_rejects_collection_that_lost_rows(
    index: Index, folder: Path, client: MilvusClient
) -> None:
    kept = place(generations(folder)[-1])
    client.delete(kept.view(View.IMAGE), ids=[1])
    client.release_collection(kept.view(View.TEXT))
    with pytest.raises(UnreachableError):
        index.reader().neighbours("red-mug", "gardeners", Similarity.TT, 3)
    with pytest.raises(ArtifactError, match=r"_image in Milvus at .* has 47 rows"):
        index.reader().neighbours("red-mug", "gardeners", Similarity.TT, 3)


def test_searches_ask_a_server_that_is_down_only_a_few_times(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count attempts instead of seconds: by default, pymilvus would try until the request times out."""
    waits: list[float] = []
    with server(tmp_path) as running:
        index = Index.open(placed(shop, tmp_path, vectors=running.uri))
        running.stop()
        monkeypatch.setattr("pymilvus.decorators.time.sleep", waits.append)
        for _ in range(3):
            with pytest.raises(UnreachableError, match=r"is unavailable"):
                index.reader().neighbours("red-mug", "gardeners", Similarity.TT, 3)
        assert sum(waits) < 1
        index.close()


def test_reports_failed_drop_of_collection_and_drops_it_later(
    shop: FakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("indexes.vectors.milvus.milvus_collections.REQUEST_TIMEOUT_S", 4.0)
    with server(tmp_path) as running:
        folder = placed(shop, tmp_path, vectors=running.uri)
        shutil.rmtree(generations(folder)[0])
        running.stop()
        restored = RestoreConfig(snapshot=shop.index, out=folder, checkpoint=folder.parent / "checkpoint")
        restore(restored)
        assert re.search(r"rcml_index_000001_\w+ is no longer needed but could not", capsys.readouterr().err)
        running.start()
        client = persisted(lambda: MilvusClient(running.uri))
        assert len(persisted(client.list_collections)) == 3
        restore(restored)
        assert client.list_collections() == []
        client.close()


def test_backup_stores_vectors_in_files(
    index: Index, folder: Path, shop: FakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Expected(shop)
    changes = [made("new", 1), Change("cot")]
    index.apply(changes)
    expected.apply(*changes)
    out = folder.parent / "snapshot"
    snapshot(SnapshotConfig(index=folder, out=out))
    assert len(list(out.rglob("*.faiss"))) == 12
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pymilvus", None)
        copy = Index.open(out)
        expected.check(copy)
        copy.close()
        assert "is intact" in verify(VerifyConfig(index=out))
    index.apply([made("lost", 2)])
    restore(RestoreConfig(snapshot=out, out=folder))
    index.refresh()
    expected.check(index)
    assert isinstance(index.snapshot.generation.vectors, MilvusVectors)


@pytest.mark.parametrize("kind", MILVUS_KINDS)
@pytest.mark.parametrize("k", [1, 7, 20, 21, ITEMS])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 1.0])
def test_server_limits_do_not_affect_results(
    kind: IndexKind,
    k: int,
    share: float,
    tmp_path: Path,
    milvus_lite: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lower the limits to 16 results and 8 filter rows, which imitates an index of millions of items."""
    encoding = tied()
    (tmp_path / "index").mkdir()
    monkeypatch.setattr("indexes.vectors.milvus.milvus_writer.MAX_SCANNED_ITEMS", 0)
    write_milvus(
        tmp_path / "vectors",
        tmp_path / "index" / "generation-000001",
        milvus_lite,
        RELATIONS,
        DIM,
        source(encoding),
        kind,
    )
    monkeypatch.setattr("indexes.vectors.milvus.milvus_backend.MAX_MILVUS_RESULTS", 16)
    monkeypatch.setattr("indexes.vectors.milvus.milvus_backend.MAX_FILTER_ROWS", 8)
    vectors = MilvusVectors(tmp_path / "vectors")
    allowed = np.random.default_rng(k).random(ITEMS) < share
    query = encoding.text[0, 1]
    everything = reference(encoding, 1, View.TEXT, query, ITEMS).rows.tolist()
    found = vectors.search(1, View.TEXT, query, k, allowed, frozenset({3}))
    assert found.rows.tolist() == [row for row in everything if allowed[row] and row != 3][:k]
    vectors.close()


def test_stores_all_vectors_with_small_messages(
    tmp_path: Path, milvus_lite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.vectors.milvus.milvus_backend.MAX_MESSAGE_BYTES", 2_000)
    monkeypatch.setattr("indexes.vectors.milvus.milvus_writer.MAX_MESSAGE_BYTES", 2_000)
    encoding = Encoding(tied().text, tied().text[::-1].copy())
    (tmp_path / "index").mkdir()
    write_milvus(
        tmp_path / "vectors",
        tmp_path / "index" / "generation-000001",
        milvus_lite,
        RELATIONS,
        DIM,
        source(encoding, 25),
    )
    vectors = MilvusVectors(tmp_path / "vectors")
    for view in View:
        stored = encoding.view(view)[:, 1].astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(vectors.vectors(1, view, range(ITEMS)), stored)
    vectors.close()


def test_missing_pymilvus_error_names_install_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(InputError, match=r"pip install 'rcml\[milvus\]'"):
        Index.open(folder)


@pytest.mark.parametrize(
    ("uri", "refusal"),
    [
        ("http://root:Milvus@localhost:19530", "must not contain a user name or a password"),
        ("localhost:19530", "must be the address of a Milvus server, for example http://host:19530"),
        ("milvus", "must be the address of a Milvus server"),
    ],
)
def test_rejects_milvus_address_with_password_or_invalid_format(
    shop: FakeShop, uri: str, refusal: str
) -> None:
    with pytest.raises(ValidationError, match=refusal):
        config(shop, Path("out"), uri)


@pytest.mark.parametrize("kind", ["hnsw", "ivf-pq", "ivf-rabitq"])
def test_rejects_index_kind_that_milvus_does_not_support(
    shop: FakeShop, tmp_path: Path, milvus_lite: str, kind: IndexKind
) -> None:
    options = config(shop, tmp_path / "index", milvus_lite).model_copy(update={"kind": kind})
    refusal = (
        rf"--kind {kind} is not available for vectors in Milvus \(--vectors\). Use --kind flat or ivf-flat"
    )
    with pytest.raises(InputError, match=refusal):
        build(options, FakeEncoder(), *parents(shop))


def test_rejects_ivf_flat_for_vectors_in_files(shop: FakeShop, tmp_path: Path) -> None:
    options = BuildConfig(
        checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index", kind="ivf-flat"
    )
    with pytest.raises(
        InputError, match=r"--kind ivf-flat is not available for vectors in files. Use --kind flat or"
    ):
        build(options, FakeEncoder(), *parents(shop))


def test_index_with_cells_reports_recall_and_keeps_its_kind(
    shop: FakeShop, tmp_path: Path, milvus_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changes, compaction, backup and restore of an ivf-flat index give the same answers as a dictionary."""
    monkeypatch.setattr("indexes.vectors.milvus.milvus_writer.MAX_SCANNED_ITEMS", 0)
    out = tmp_path / "index"
    options = config(shop, out, milvus_server).model_copy(update={"kind": "ivf-flat", "min_recall": 0.999})
    build(options, FakeEncoder(), *parents(shop))
    index, expected = Index.open(out), Expected(shop)
    changes = [made("new", 1), Change("cot")]
    index.apply(changes)
    expected.apply(*changes)
    index.compact()
    expected.check(index)
    said = stats(StatsConfig(index=out))
    assert re.search(r"^kind +ivf-flat$", said, re.MULTILINE)
    assert re.search(r"^recall@10 +1.0000 to 1.0000, measured at build time$", said, re.MULTILINE)
    snapshot(SnapshotConfig(index=out, out=tmp_path / "snapshot"))
    copy = Index.open(tmp_path / "snapshot")
    expected.check(copy)
    assert copy.snapshot.generation.config.kind == "auto"
    copy.close()
    index.close()


def test_refuses_collection_of_earlier_version_and_rebuild_drops_it(
    folder: Path, shop: FakeShop, client: MilvusClient, milvus_server: str
) -> None:
    """Earlier versions kept one collection with a vector field for each view."""
    generation = generations(folder)[-1]
    file = generation / "vectors" / MILVUS_FILE
    kept = place(generation)
    client.create_collection(kept.collection, dimension=4)
    names = ("uri", "collection", "count", "dim", "relations")
    file.write_text(json.dumps({name: getattr(kept, name) for name in names}))
    with pytest.raises(
        ArtifactError, match=r"one collection per view. Rebuild the index: `rcml index build .*`"
    ):
        open_vectors(generation / "vectors")
    build(config(shop, folder, milvus_server), FakeEncoder(), *parents(shop))
    index = Index.open(folder)
    Expected(shop).check(index)
    index.close()
    assert not {kept.collection, *map(kept.view, View)} & set(client.list_collections())
