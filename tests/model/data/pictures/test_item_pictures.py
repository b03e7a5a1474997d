"""Pictures of items: cells in every notation, downloads with faults, resumption, and reasons in words."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from benchmarks.rig.picture_server import FAULTS, paths, picture_server
from model.data.pictures.downloads import DownloadLimits, download, reasons
from model.data.pictures.item_pictures import Fetching, resolve_pictures
from model.data.pictures.picture_cache import Failure, PictureCache
from model.durable_files import lock_folder
from model.errors import ArtifactError, StorageError

FAST = DownloadLimits(first_wait_s=0.01)


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with picture_server() as address:
        yield address


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with a red, a green and a blue picture."""
    (tmp_path / "red mugs").mkdir()
    for name, colour in (("red mugs/a.png", "red"), ("b.png", "lime"), ("c;d.png", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / name)
    (tmp_path / "stored").mkdir()
    return tmp_path


def resolved(root: Path, *cells: str, fetching: Fetching | None = None) -> Path | str | None:
    [found] = resolve_pictures([cells], [root], root / "stored", 32, fetching)
    return found


def colour(root: Path, *cells: str) -> object:
    found = resolved(root, *cells)
    assert isinstance(found, Path), found
    with Image.open(found) as picture:
        return picture.getpixel((0, 0))


@pytest.mark.parametrize(
    "cell",
    [
        "red mugs/a.png ",
        " 'red mugs/a.png'",
        "red mugs\\a.png",
        "red%20mugs/a.png",
        "red%20mugs\\a.png",
        "gone.png,red mugs/a.png",
        "gone.png;red mugs/a.png",
        "red mugs/a.png|b.png",
        "red mugs/a.png\nb.png",
        "gone.jpeg , red mugs/a.png",
        "https://shop.example/a.png,red mugs/a.png",
        "ftp://shop.example/a.png",
    ],
)
def test_first_usable_picture_of_a_cell_is_stored(cell: str, root: Path) -> None:
    cells = [cell, "red mugs/a.png"] if cell.startswith("ftp") else [cell]
    assert colour(root, *cells) == (255, 0, 0)


def test_file_address_names_a_local_picture(root: Path) -> None:
    assert colour(root, f"file://{root}/red%20mugs/a.png") == (255, 0, 0)
    assert colour(root, "file:b.png") == (0, 255, 0)


def test_name_with_a_separator_is_one_picture(root: Path) -> None:
    assert colour(root, "c;d.png") == (0, 0, 255)


def test_list_is_tried_in_its_order(root: Path) -> None:
    assert colour(root, "gone.png", "b.png", "red mugs/a.png") == (0, 255, 0)


def test_item_without_a_picture_has_none(root: Path) -> None:
    assert resolve_pictures([[], [" ", ""]], [root] * 2, root / "stored", 32) == [None, None]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (
            "https://cdn.shop.example/a.jpg",
            "the picture is an address (https://cdn.shop.example/...); give --fetch",
        ),
        (
            "HTTP://shop.example:8080/a",
            "the picture is an address (http://shop.example:8080/...); give --fetch",
        ),
        (
            "//cdn.shop.example/a.jpg",
            "the picture is an address (https://cdn.shop.example/...); give --fetch",
        ),
        (r"https:\/\/cdn.shop.example\/a.jpg", "the picture is an address (https://cdn.shop.example/...)"),
        ("https://me:secret@shop.example/a", "the picture is an address (https://shop.example/...); give"),
        ("ftp://shop.example/a.jpg", "the picture is an address with the scheme ftp; give an http or https"),
        ("data:image/png;base64,AAAA", "the picture is an address with the scheme data; give"),
        ("gone.png", "picture gone.png does not exist"),
        ("a\0.png", "picture a"),
        ("x" * 5000, "picture x"),
        ("red mugs", "picture red mugs cannot be decoded"),
    ],
)
def test_reason_names_the_picture_and_the_remedy(cell: str, reason: str, root: Path) -> None:
    found = resolved(root, cell)
    assert isinstance(found, str)
    assert found.startswith(reason)
    assert "secret" not in found


def test_every_picture_of_a_cell_that_fails_is_told(root: Path) -> None:
    assert resolved(root, "a/x.png, y.png") == (
        f"picture a/x.png does not exist in the folder {root}; picture y.png does not exist in the folder {root}"
    )


def test_addresses_that_are_not_downloaded_are_told_once(root: Path) -> None:
    told = resolved(root, "https://one.example/a.jpg", "https://two.example/a.jpg")
    assert told == "the picture is an address (https://one.example/...); give --fetch to download it"


def fetching(root: Path, host: str) -> Fetching:
    return Fetching(root / "cache", FAST, (host,))


def test_item_gets_the_first_of_its_addresses_that_works(host: str, root: Path) -> None:
    found = resolved(
        root,
        f"http://{host}/gone/1.jpg",
        "gone.png",
        f"http://{host}/ok/1.jpg",
        fetching=fetching(root, host),
    )
    assert found == root / "stored" / "0000000.jpg"
    with Image.open(found) as picture:
        assert picture.size == (32, 32)


def test_failed_download_is_told_with_its_host(host: str, root: Path) -> None:
    found = resolved(root, f"http://{host}/gone/1.jpg", fetching=fetching(root, host))
    assert found == f"the picture at {host} was not downloaded: its server responded with status 404"


def test_private_address_is_refused_unless_it_is_named(host: str, root: Path) -> None:
    found = resolved(root, f"http://{host}/ok/1.jpg", fetching=Fetching(root / "cache", FAST))
    assert found is not None
    assert "the port of its URL is not one of" in str(found)
    assert "its host has an address that is not public" in str(
        resolved(
            root, "http://127.0.0.1:8080/ok/1.jpg", fetching=Fetching(root / "cache", FAST, ("10.0.0.1",))
        )
    )


def test_every_fault_is_named_and_every_other_picture_stored(host: str, tmp_path: Path) -> None:
    asked = [f"http://{host}{path}?faults" for path in paths(120, 0.5)]
    with PictureCache.open(tmp_path, 32) as cache:
        failures = download(asked, cache, FAST, [host])
        stored = set(cache.files)
    kinds = {address: address.split("/")[3] for address in asked}
    lost = {address for address, kind in kinds.items() if FAULTS.get(kind)}
    assert stored == set(asked) - lost
    assert {failure.address: failure.reason for failure in failures} == {
        address: FAULTS[kinds[address]] for address in lost
    }
    assert sum(reasons(failures).values()) == len(lost)


def test_only_faults_that_may_pass_are_tried_again(host: str, tmp_path: Path) -> None:
    asked = [f"http://{host}/{fault}/tries.jpg" for fault in ("gone", "page", "words", "error", "reset")]
    with PictureCache.open(tmp_path, 32) as cache:
        tries = [failure.tries for failure in sorted(download(asked, cache, FAST, [host]), key=_kind)]
    assert tries == [4, 1, 1, 4, 1]  # error, gone, page, reset, words


def _kind(failure: Failure) -> str:
    return failure.address


def test_server_that_asks_for_a_longer_wait_than_allowed_is_not_asked_again(
    host: str, tmp_path: Path
) -> None:
    limits = DownloadLimits(first_wait_s=0.01, max_wait_s=0.5)
    with PictureCache.open(tmp_path, 32) as cache:
        [failure] = download([f"http://{host}/busy/longer.jpg"], cache, limits, [host])
    assert (failure.reason, failure.tries) == ("its server responded with status 429", 1)


def test_later_run_fetches_only_what_failed(host: str, root: Path) -> None:
    cells = [[f"http://{host}/ok/again.jpg"], [f"http://{host}/gone/again.jpg"]]
    resolve_pictures(cells, [root] * len(cells), root / "stored", 32, fetching(root, host))
    table = pl.read_csv(root / "cache" / "failures.csv")
    assert table.rows() == [(cells[1][0], host, "its server responded with status 404", 1)]
    with PictureCache.open(root / "cache", 32) as cache:
        assert [
            failure.address for failure in download([*cells[0], *cells[1]], cache, FAST, ["elsewhere"])
        ] == cells[1]


def test_cache_survives_a_kill_at_any_byte_of_its_index(tmp_path: Path) -> None:
    with PictureCache.open(tmp_path, 32) as cache:
        for number in range(3):
            cache.keep(f"http://shop.example/{number}", bytes([number]), ".jpg")
    whole = (tmp_path / "addresses.jsonl").read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for length in range(len(whole) + 1):
        (tmp_path / "addresses.jsonl").write_bytes(whole[:length])
        with PictureCache.open(tmp_path, 32) as cache:
            complete = sum(end - 1 <= length for end in ends)
            assert list(cache.files) == [f"http://shop.example/{number}" for number in range(complete)]
            cache.keep("http://shop.example/new", b"new", ".png")
        with PictureCache.open(tmp_path, 32) as cache:
            assert cache.read("http://shop.example/new") == (b"new", ".png")


def test_damaged_or_missing_picture_of_the_cache_is_fetched_again(host: str, root: Path) -> None:
    address = f"http://{host}/ok/damaged.jpg"
    assert isinstance(resolved(root, address, fetching=fetching(root, host)), Path)
    [stored] = (root / "cache").glob("*/*.jpg")
    content = stored.read_bytes()
    for harm in (lambda: stored.write_bytes(content[:-1]), stored.unlink):
        harm()
        assert isinstance(resolved(root, address, fetching=fetching(root, host)), Path)
        assert stored.read_bytes() == content


def test_partial_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "abc.jpg.12.partial").write_bytes(b"half")
    with PictureCache.open(tmp_path, 32):
        assert list(tmp_path.glob("*/*")) == []


def test_same_picture_at_two_addresses_is_stored_once(tmp_path: Path) -> None:
    with PictureCache.open(tmp_path, 32) as cache:
        cache.keep("http://a.example/1", b"same", ".jpg")
        cache.keep("http://b.example/1", b"same", ".jpg")
    entries = [json.loads(line) for line in (tmp_path / "addresses.jsonl").read_text().splitlines()]
    assert entries[0]["file"] == entries[1]["file"]
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_pictures_of_another_size_are_fetched_anew(tmp_path: Path) -> None:
    with PictureCache.open(tmp_path, 32) as cache:
        cache.keep("http://a.example/1", b"small", ".jpg")
    with PictureCache.open(tmp_path, 64) as cache:
        assert cache.read("http://a.example/1") is None


def open_and_close(folder: Path) -> None:
    with PictureCache.open(folder, 32):
        pass


def test_two_runs_do_not_share_a_cache(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "cache"), pytest.raises(ArtifactError, match="Another run"):
        open_and_close(tmp_path)


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(StorageError, match=r"cache cannot be created \(File exists.*Choose another folder"):
        open_and_close(tmp_path / "cache")


def test_the_picture_of_an_item_is_looked_for_in_its_own_folder(tmp_path: Path) -> None:
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), colour).save(tmp_path / name / "1.png")
    stored = tmp_path / "stored"
    stored.mkdir()
    found = resolve_pictures([["1.png"], ["1.png"]], [tmp_path / "red", tmp_path / "blue"], stored, 32)
    colours = [Image.open(path).getpixel((4, 4)) for path in found if isinstance(path, Path)]
    assert colours == [(255, 0, 0), (0, 0, 255)]
