"""Codes for filters among the files of a generation: carried, rebuilt, verified, and absent in older generations."""

import json
import os
from pathlib import Path

import pytest

from indexes.admin.inspection import verify
from indexes.config import VerifyConfig
from indexes.index import Index
from indexes.journal.change import Change
from indexes.storage.layout import newest_generation
from indexes.vectors import faiss_backend, filter_plan, filter_recall
from model.artifact import read_manifest
from model.errors import ArtifactError
from model.plain_file import FileRecord
from model.records import Relation
from tests.indexes.search.test_free_text_search import TokenEncoder, changed, item, make

ITEMS = 220


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an index that has codes, although its items are few."""
    monkeypatch.setattr(faiss_backend, "MAX_SCANNED_ITEMS", 100)
    monkeypatch.setattr(faiss_backend, "MIN_CODED_ITEMS", 100)
    monkeypatch.setattr(filter_plan, "MIN_CODED_ROWS", 50)
    monkeypatch.setattr(filter_plan, "CODES_PER_CANDIDATE", 1)
    monkeypatch.setattr(filter_recall, "MAX_SCANNED_SHARE", 1.0)
    make(tmp_path, [item(number) for number in range(ITEMS)], kind="hnsw", answers="none").close()
    return tmp_path / "index"


def codes(folder: Path) -> dict[str, Path]:
    """Return the files of codes in the newest generation, by name; the manifest names each of them."""
    generation = newest_generation(folder)
    found = {path.name: path for path in (generation / "vectors").glob("*.codes.faiss")}
    assert {f"vectors/{name}" for name in found} <= read_manifest(generation, "index").files.keys()
    return found


def margins(index: Index) -> list[float | None]:
    """Return the margin of the codes for each relation and view."""
    return [one.code_margin for one in index.snapshot.generation.vectors.report.values()]


def forget(folder: Path) -> None:
    """Turn the newest generation into one of an earlier version, which had no codes."""
    generation = newest_generation(folder)
    path = generation / "vectors" / "report.json"
    reports = json.loads(path.read_text())
    for report in reports.values():
        del report["code_margin"], report["code_recall_at_10"]
    path.write_text(json.dumps(reports))
    for file in codes(folder).values():
        file.unlink()
    manifest = read_manifest(generation, "index")
    files = {name: record for name, record in manifest.files.items() if not name.endswith(".codes.faiss")}
    files["vectors/report.json"] = FileRecord.of(path)
    (generation / "manifest.json").write_text(manifest.model_copy(update={"files": files}).text)


def test_added_relation_gets_codes_and_the_others_are_hard_links(folder: Path) -> None:
    before = codes(folder)
    index = Index.open(folder)
    worded = TokenEncoder().read_relation("w3 w7 worn by sailors")
    index.add_relation(Relation("sailors", worded.description), worded)
    index.close()
    after = codes(folder)
    added = {name for name in after if name.startswith("004.")}
    assert after.keys() - before.keys() == added
    assert len(added) == 3
    assert all(os.path.samefile(after[name], path) for name, path in before.items())
    assert "is intact" in verify(VerifyConfig(index=folder))


def test_compaction_writes_codes_of_the_items_that_are_left(folder: Path) -> None:
    before = codes(folder)
    index = Index.open(folder)
    index.apply([changed(500, 7), Change("i3"), Change("i4")])
    index.compact()
    assert None not in margins(index)
    assert index.snapshot.generation.vectors.count == ITEMS - 1
    index.close()
    after = codes(folder)
    assert after.keys() == before.keys()
    assert not any(os.path.samefile(after[name], path) for name, path in before.items())
    assert "is intact" in verify(VerifyConfig(index=folder))


@pytest.mark.parametrize("removed", [False, True])
def test_verify_names_damaged_and_missing_codes(removed: bool, folder: Path) -> None:
    path = codes(folder)["001.text.codes.faiss"]
    if removed:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"001\.text\.codes\.faiss"):
        verify(VerifyConfig(index=folder))


def test_earlier_generation_gets_codes_when_it_is_compacted(folder: Path) -> None:
    forget(folder)
    assert "is intact" in verify(VerifyConfig(index=folder))
    index = Index.open(folder)
    assert set(margins(index)) == {None}
    worded = TokenEncoder().read_relation("w3 w7 worn by sailors")
    index.add_relation(Relation("sailors", worded.description), worded)
    assert margins(index).count(None) == len(margins(index)) - 3
    index.apply([changed(500, 7)])
    index.compact()
    assert None not in margins(index)
    index.close()
