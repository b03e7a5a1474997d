"""Tests for `rcml index build`: the index that it writes and the summary that it returns."""

from pathlib import Path

from indexes.config import BuildConfig
from indexes.index import Index
from service.build_index import build
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop


def test_writes_index_and_returns_one_line_summary(shop: FakeShop, tmp_path: Path) -> None:
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index")
    summary = build(config, lambda *_: FakeEncoder())
    assert summary == f"Indexed 12 items for 4 relations (cpu, towers in fp32 by torch): {config.out}"
    opened = Index.open(config.out)
    assert len(opened) == len(ITEMS)
    opened.close()
