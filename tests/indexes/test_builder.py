"""What `rcml index` leaves on disk."""

import json
import shutil
from pathlib import Path

import pytest

from indexes.builder import build
from indexes.config import IndexConfig
from indexes.index import Index
from model.artifact import open_artifact
from model.checkpoint import Checkpoint
from model.encoding import Encoding
from model.prepared import Prepared
from model.records import View

from .fakes import ITEMS, RELATIONS, FakeEncoder, FakeShop, ids


class BreakingEncoder(FakeEncoder):
    """Stops in the middle of the work."""

    def encode_items(self, *inputs: object) -> Encoding:
        raise KeyboardInterrupt


def test_the_manifest_names_both_parents_and_counts(shop: FakeShop) -> None:
    manifest = open_artifact(shop.index, "index")
    assert manifest.counts == {"items": len(ITEMS), "relations": len(RELATIONS)}
    assert manifest.parents == {
        "checkpoint": open_artifact(shop.checkpoint, "checkpoint").digest,
        "prepared": open_artifact(shop.prepared, "prepared").digest,
    }


def test_there_is_a_file_for_each_relation_and_view(shop: FakeShop) -> None:
    names = {path.name for path in (shop.index / "vectors").iterdir()}
    assert names == {f"{position:03d}.{view}.faiss" for position in range(len(RELATIONS)) for view in View}


def test_every_picture_is_copied(shop: FakeShop) -> None:
    for item in ITEMS:
        assert (shop.index / item.picture).read_bytes() == (shop.prepared / item.picture).read_bytes()


def test_relations_carry_the_number_of_their_pairs(shop: FakeShop) -> None:
    relations = json.loads((shop.index / "relations.json").read_text())
    assert [relation["pairs"] for relation in relations] == [None, 1, 0, 2]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_size_of_the_batches_changes_nothing(shop: FakeShop, tmp_path: Path, batch_size: int) -> None:
    config = IndexConfig(
        checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index", batch_size=batch_size
    )
    build(config, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    ours, theirs = (open_artifact(path, "index").files for path in (config.out, shop.index))
    same = [name for name in theirs if name.startswith("vectors/")]
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}


def test_a_broken_off_run_leaves_nothing_behind(shop: FakeShop, tmp_path: Path) -> None:
    config = IndexConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index")
    with pytest.raises(KeyboardInterrupt):
        build(config, BreakingEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    assert list(tmp_path.iterdir()) == []


def test_an_index_and_its_checkpoint_may_be_moved_together(shop: FakeShop, tmp_path: Path) -> None:
    shutil.copytree(shop.index.parent, tmp_path / "moved")
    index = Index.open(tmp_path / "moved" / "index")
    assert index.checkpoint.path == (tmp_path / "moved" / "checkpoint").resolve()
    assert index.catalogue.get("cot").item_id in ids()
    index.close()
