"""`rcml index verify` and `rcml index stats` on an intact index and on damaged indexes."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from indexes.admin.inspection import stats, verify
from indexes.config import StatsConfig, VerifyConfig
from indexes.storage.generation import Generation
from model.artifact import read_manifest
from model.errors import ArtifactError
from model.plain_file import FileRecord, file_digest
from model.similarity import View
from tests.indexes.fakes import ITEMS, FakeEncoder, FakeShop, write_shop


@pytest.fixture
def copy(shop: FakeShop, tmp_path: Path) -> Path:
    """Copy the index, and return the path of its only generation."""
    return Path(shutil.copytree(shop.index, tmp_path / "index")) / "generation-000001"


def test_verify_reports_intact_index(shop: FakeShop) -> None:
    assert verify(VerifyConfig(index=shop.index)).startswith(
        f"{shop.generation} is intact: 12 items, 58 files, "
    )


@pytest.mark.parametrize("name", ["vectors/002.image.faiss", "vectors/report.json", ITEMS[3].picture])
def test_verify_names_file_with_changed_byte(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        verify(VerifyConfig(index=copy.parent))


def test_verify_finds_inconsistent_files_with_correct_digests(copy: Path) -> None:
    catalogue = copy / "catalogue.sqlite"
    manifest = read_manifest(copy, "index")
    with sqlite3.connect(catalogue) as connection:
        connection.execute("DELETE FROM items WHERE row = 11")
    changed = FileRecord(size=catalogue.stat().st_size, sha256=file_digest(catalogue))
    manifest = manifest.model_copy(update={"files": {**manifest.files, catalogue.name: changed}})
    (copy / "manifest.json").write_text(manifest.text)
    with pytest.raises(ArtifactError, match=r"manifest\.json has 12 items, but catalogue\.sqlite has 11\."):
        verify(VerifyConfig(index=copy.parent))


def test_stats_describe_index(shop: FakeShop) -> None:
    lines = dict(line.split("  ", 1) for line in stats(StatsConfig(index=shop.index)).splitlines())
    said = {label.strip(): value.strip() for label, value in lines.items()}
    assert said["items"] == "12"
    assert said["relations"] == "4"
    assert said["vectors"] == "144 with 16 components each (text, image, average)"
    assert (said["kind"], said["recall@10"]) == ("flat", "1, exact search")


def test_stats_show_the_memory_for_free_text_relations(tmp_path: Path) -> None:
    shop = write_shop(tmp_path, token_store=True)
    generation = Generation.open(shop.generation)
    store = generation.tokens
    assert store is not None
    tokens = len(store.tokens.text.states) + len(store.tokens.image.states)
    assert store.mapped_bytes == tokens * (16 + 4)  # 16 components and a length of four bytes
    for view in View:
        made = store.estimates(FakeEncoder().read_relation("Things for the garden."), view)
        assert made.nbytes <= store.estimate_bytes_per_relation == 2 * 12 * 48  # 2 x (16 + 1), filled up
    generation.close()
    assert (
        f"free-text memory     {store.mapped_bytes / 1024:.1f} KiB, shared by all processes, and up to 1.1 KiB in each "
        "for a relation that it keeps" in stats(StatsConfig(index=shop.index))
    )


def test_stats_show_the_least_recall_of_filters(copy: Path) -> None:
    measured = [
        {"share": 0.5, "clustered": False, "recall_at_10": 0.97, "scanned": 0.0},
        {"share": 0.5, "clustered": True, "recall_at_10": 0.96, "scanned": 0.4},
        {"share": 0.25, "clustered": False, "recall_at_10": 0.9, "scanned": 0.0},
    ]
    path = copy / "vectors" / "report.json"
    reports = json.loads(path.read_text())
    assert "filtered recall@10" not in stats(StatsConfig(index=copy.parent))
    reports["001.text"] |= {"filters": measured, "least_filter_share": 0.5, "filter_effort": 64}
    path.write_text(json.dumps(reports))
    manifest = read_manifest(copy, "index")
    changed = FileRecord(size=path.stat().st_size, sha256=file_digest(path))
    manifest = manifest.model_copy(update={"files": {**manifest.files, "vectors/report.json": changed}})
    (copy / "manifest.json").write_text(manifest.text)
    found = stats(StatsConfig(index=copy.parent))
    assert f"50%: 0.9600, 25%: 0.9000; 1 of {len(reports)} vector files answer wide filters from the" in found
