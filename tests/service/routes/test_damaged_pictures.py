"""Damaged pictures: the server says that its own file is damaged, names it, and answers everything else as before."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from indexes.admin.inspection import verify
from indexes.config import VerifyConfig
from indexes.index import Index
from indexes.storage.layout import newest_generation
from model.errors import ArtifactError, DamagedPictureError
from model.plain_file import FileRecord
from service.settings import ServeConfig
from tests.indexes.changes import SAILORS, WORDED, copied, made
from tests.indexes.fakes import FakeShop, write_shop
from tests.service.conftest import served


@pytest.fixture
def index(shop: FakeShop, tmp_path: Path) -> Path:
    return copied(shop, tmp_path)


@pytest.fixture
def own(index: Path) -> Iterator[TestClient]:
    with served(ServeConfig(index=index)) as client:
        yield client


def picture(index: Path, row: int = 0) -> Path:
    """Return the file of the picture of an item; row 0 is `red-mug`."""
    return newest_generation(index) / "pictures" / f"{row:05d}.png"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def swap(path: Path) -> None:
    shutil.copyfile(path.with_name("00001.png"), path)


def remove(path: Path) -> None:
    path.unlink()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGE = (truncate, empty, flip, swap, remove, fifo, link)

EXPLAIN = {"item_a": "red-mug", "item_b": "blue-mug", "relation": "gardeners"}


def metric(client: TestClient) -> str:
    lines = client.get("/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("rcml_damaged_pictures "))


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_no_request_for_a_damaged_picture_is_the_fault_of_the_client(
    damage: Callable[[Path], None], index: Path, own: TestClient
) -> None:
    damage(picture(index))
    asked = (
        own.get("/items/red-mug/image"),
        own.post("/explain", json=EXPLAIN),
        own.post("/explain/heat-map", json={"item": "red-mug", "relation": "gardeners"}),
    )
    for answer in asked:
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:rcml:problem:damaged-picture")
        assert "generation-000001/pictures/00000.png of this server is damaged" in answer.json()["detail"]
        assert str(index) not in answer.text
    assert own.get("/items/blue-mug/image").status_code == 200
    ready = own.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["warnings"] == [
        "1 stored pictures are damaged: generation-000001/pictures/00000.png. Check the index with `rcml index verify`."
    ]
    assert metric(own) == "rcml_damaged_pictures 1.0"


def test_other_requests_about_the_item_are_answered(index: Path, own: TestClient) -> None:
    body = {"item": "red-mug", "relation": "gardeners"}
    before = own.post("/embeddings", json=body)
    flip(picture(index))
    assert own.get("/items/red-mug/image").status_code == 500
    after = own.post("/embeddings", json=body)
    assert before.status_code == after.status_code
    assert own.get("/items/red-mug").status_code == 200


def test_a_picture_is_read_once_until_its_file_changes(
    index: Path, own: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, read, check = picture(index).read_bytes(), list[str](), FileRecord.check

    def counted(record: FileRecord, path: Path, folder: Path) -> None:
        read.append(path.name)
        check(record, path, folder)

    monkeypatch.setattr(FileRecord, "check", counted)
    for _ in range(3):
        assert own.get("/items/red-mug/image").content == content
    assert read == ["00000.png"]
    aside = index / "aside"
    flip(picture(index))
    assert own.get("/items/red-mug/image").status_code == 500
    aside.write_bytes(content)
    aside.rename(picture(index))
    assert own.get("/items/red-mug/image").content == content
    assert read == ["00000.png"] * 3
    assert own.get("/readyz").json()["warnings"] == []
    assert metric(own) == "rcml_damaged_pictures 0.0"


def test_a_cached_picture_is_not_confirmed_while_the_file_is_damaged(index: Path, own: TestClient) -> None:
    tag = own.get("/items/red-mug/image").headers["etag"]
    swap(picture(index))
    assert own.get("/items/red-mug/image", headers={"If-None-Match": tag}).status_code == 500


def test_a_wrong_size_is_known_when_the_index_is_opened(index: Path) -> None:
    truncate(picture(index, 3))
    remove(picture(index, 5))
    with served(ServeConfig(index=index)) as client:
        assert metric(client) == "rcml_damaged_pictures 2.0"
        assert client.get("/readyz").json()["warnings"][0].startswith("2 stored pictures are damaged")


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_new_generation_does_not_make_damage_the_truth(damage: Callable[[Path], None], index: Path) -> None:
    opened = Index.open(index)
    damage(picture(index))
    with pytest.raises(DamagedPictureError, match="generation-000001"):
        opened.picture("red-mug")
    opened.apply([made("new", 1)])
    opened.compact()
    for name in ("generation-000002", "generation-000003"):
        with pytest.raises(DamagedPictureError, match=name):
            opened.picture("red-mug")
        assert opened.pictures.damaged == [f"{name}/pictures/00000.png"]
        assert opened.picture("new").content == picture(index).with_name("change-000000001.png")
        with pytest.raises(ArtifactError, match=r"00000\.png"):
            verify(VerifyConfig(index=index))
        if name == "generation-000002":
            opened.apply([made("newer", 2)])
            opened.compact()
    opened.close()


def test_a_damaged_picture_in_the_journal_is_named_and_survives_compaction(index: Path) -> None:
    opened = Index.open(index)
    opened.apply([made("new", 1), made("newer", 2)])
    engine = opened.journal.engine()
    assert engine is not None
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE changes SET picture = x'00' WHERE item_id = 'new'")
    with pytest.raises(DamagedPictureError, match="change 1 is damaged"):
        opened.picture("new")
    assert opened.pictures.damaged == ["change 1"]
    opened.compact()
    with pytest.raises(DamagedPictureError, match=r"generation-000002/pictures/change-000000001\.png"):
        opened.picture("new")
    assert opened.reader().snapshot.get("new").title
    opened.picture("newer")
    opened.apply([made("new", 1)])  # the remedy
    opened.picture("new")
    opened.compact()
    assert opened.pictures.damaged == []
    verify(VerifyConfig(index=index))
    opened.close()


def test_an_added_relation_takes_damaged_pictures_over(tmp_path: Path) -> None:
    index = write_shop(tmp_path, token_store=True).index
    opened = Index.open(index)
    flip(picture(index))
    remove(picture(index, 1))
    opened.add_relation(SAILORS, WORDED[SAILORS.relation_id])
    for item in ("red-mug", "blue-mug"):
        with pytest.raises(DamagedPictureError, match="generation-000002"):
            opened.picture(item)
    opened.picture("twin-1")
    opened.close()
