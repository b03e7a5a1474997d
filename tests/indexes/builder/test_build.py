"""Files that `rcml index build` writes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexes.builder.auto_options import choose_kind
from indexes.builder.build import build
from indexes.config import BuildConfig
from indexes.index import Index
from indexes.storage.layout import newest_generation
from model.artifact import open_artifact
from model.checkpoint.checkpoint import Checkpoint
from model.data.item_input import ItemFormat
from model.data.prepared_data import Prepared
from model.embeddings.encoding import Encoding
from model.errors import InputError
from model.similarity import View
from tests.indexes.changes import add
from tests.indexes.fakes import ITEMS, RELATIONS, FakeEncoder, FakeShop, ids, write_shop


class BreakingEncoder(FakeEncoder):
    """Encoder that interrupts the build."""

    def read_items(self, *inputs: object) -> Callable[[], Encoding]:
        raise KeyboardInterrupt


def test_manifest_contains_counts_and_both_parents(shop: FakeShop) -> None:
    manifest = open_artifact(shop.generation, "index")
    assert manifest.counts == {
        "items": len(ITEMS),
        "relations": len(RELATIONS),
        "set_aside": 0,
        "sequence": 0,
        "journal": 1,
        "built": 0,
    }
    assert manifest.parents == {
        "checkpoint": open_artifact(shop.checkpoint, "checkpoint").digest,
        "prepared": open_artifact(shop.prepared, "prepared").digest,
    }


def test_writes_one_file_for_each_relation_and_view(shop: FakeShop) -> None:
    names = {path.name for path in (shop.generation / "vectors").glob("*.faiss")}
    assert names == {f"{position:03d}.{view}.faiss" for position in range(len(RELATIONS)) for view in View}


def test_copies_every_picture(shop: FakeShop) -> None:
    for item in ITEMS:
        assert (shop.generation / item.picture).read_bytes() == (shop.prepared / item.picture).read_bytes()


def test_relations_contain_counts_of_pairs_and_paired_items(shop: FakeShop) -> None:
    relations = json.loads((shop.generation / "relations.json").read_text())
    assert [relation["pairs"] for relation in relations] == [None, 1, 0, 2]
    assert [relation["paired_items"] for relation in relations] == [None, 2, 0, 3]


def test_relations_contain_sample_pairs_from_strong_to_weak(shop: FakeShop) -> None:
    relations = json.loads((shop.generation / "relations.json").read_text())
    assert [relation["sample_pairs"] for relation in relations] == [
        [],
        [["trowel", "twin-1", 5]],
        [],
        [["bib", "bottle", 9], ["bottle", "cot", 7]],
    ]
    assert [relation["users"] for relation in relations] == [None] * 4


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batch_size_does_not_change_vectors(shop: FakeShop, tmp_path: Path, batch_size: int) -> None:
    config = BuildConfig(
        checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index", batch_size=batch_size
    )
    build(config, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    ours, theirs = (
        open_artifact(newest_generation(path), "index").files for path in (config.out, shop.index)
    )
    same = [name for name in theirs if name.endswith(".faiss")]
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_interrupted_build_without_encoded_items_leaves_no_files(shop: FakeShop, tmp_path: Path) -> None:
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index")
    with pytest.raises(KeyboardInterrupt):
        build(config, BreakingEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    assert list(tmp_path.iterdir()) == []


def test_index_and_checkpoint_can_be_moved_together(shop: FakeShop, tmp_path: Path) -> None:
    shutil.copytree(shop.index.parent, tmp_path / "moved")
    index = Index.open(tmp_path / "moved" / "index")
    assert index.checkpoint.path == (tmp_path / "moved" / "checkpoint").resolve()
    assert index.snapshot.get("cot").item_id in ids()
    index.close()


@pytest.mark.parametrize(
    ("kind", "items", "memory", "chosen"),
    [
        ("auto", 100_000, None, "flat"),
        ("auto", 100_001, None, "hnsw"),
        ("auto", 100_000, "3GiB", "flat"),  # 2.86 GiB: 100,000 items x 10 relations x 3 views x 1,024 bytes
        ("auto", 100_000, "2.8GiB", "ivf-rabitq"),
        ("auto", 1_000_000, "40GiB", "hnsw"),
        ("auto", 1_000_000, "16GiB", "ivf-rabitq"),
        ("flat", 1_000_000, "40GiB", "flat"),
        ("ivf-pq", 100, None, "ivf-pq"),
        ("auto", 1_000_000, None, "hnsw"),  # 38.2 of 48 GiB, three quarters of the machine
        ("auto", 1_500_000, None, "ivf-rabitq"),
        (
            "auto",
            100_000_000,
            None,
            "ivf-rabitq",
        ),  # does not fit either; a build is refused, a compaction goes on
    ],
)
def test_auto_selects_fastest_kind_that_fits(
    kind: str, items: int, memory: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexes.builder.auto_options.machine_memory", lambda: 64 * 2**30)
    assert choose_kind(budget(kind, memory), items, 10, 512) == chosen


@pytest.mark.parametrize("kind", ["auto", "flat"])
def test_rejects_index_that_exceeds_memory_limit(kind: str) -> None:
    with pytest.raises(
        InputError,
        match=r"1,000,000 items under 10 relations need .* GiB .* exceeds --max-memory 1.0GiB. Increase",
    ):
        choose_kind(budget(kind, "1GiB"), 1_000_000, 10, 512)


def budget(kind: str, memory: str | None) -> BuildConfig:
    return BuildConfig.model_validate(
        {"checkpoint": "c", "prepared": "p", "out": "o", "kind": kind, "max_memory": memory}
    )


def test_new_generation_keeps_item_format(tmp_path: Path) -> None:
    index = Index.open(write_shop(tmp_path, token_store=True).index)
    expected = ItemFormat(text_fields=("title", "categories"), picture_size=64)
    assert index.snapshot.generation.composition == expected
    changes: tuple[Callable[[], object], ...] = (index.compact, lambda: add(index))
    for change in changes:
        before = index.snapshot.generation.path
        change()
        assert index.snapshot.generation.path != before
        assert index.snapshot.generation.composition == expected
    index.close()
