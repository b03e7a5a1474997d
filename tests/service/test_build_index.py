"""`rcml index` opens what it needs and says what it made."""

from pathlib import Path

from indexes.config import BuildConfig
from indexes.index import Index
from service.build_index import build
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop


def test_it_writes_the_index_and_sums_up_in_a_line(shop: FakeShop, tmp_path: Path) -> None:
    config = BuildConfig(checkpoint=shop.checkpoint, prepared=shop.prepared, out=tmp_path / "index")
    summary = build(config, lambda *_: FakeEncoder())
    assert summary == f"Indexed 12 items under 4 relations (cpu): {config.out}"
    opened = Index.open(config.out)
    assert len(opened) == len(ITEMS)
    opened.close()
