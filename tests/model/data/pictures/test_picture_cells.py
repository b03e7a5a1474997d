"""Cells that name pictures: paths and addresses, one or several."""

from pathlib import Path

import pytest

from model.data.pictures.picture_cells import host_of, is_address, local_path, pictures_of


@pytest.mark.parametrize(
    ("cell", "pictures"),
    [
        ("a.png ", ["a.png"]),
        ('"a.png"', ["a.png"]),
        ("a.png, b.png", ["a.png", "b.png"]),
        ("a.png|b.png", ["a.png", "b.png"]),
        ("a.png; b.png;", ["a.png", "b.png"]),
        ("odd, name.png", ["odd, name.png"]),
        ("https://x.org/a.png?s=1,2", ["https://x.org/a.png?s=1,2"]),
        ("https://x.org/a.png,https://x.org/b.png", ["https://x.org/a.png", "https://x.org/b.png"]),
        ("https://x.org/a.png https://x.org/b.png", ["https://x.org/a.png", "https://x.org/b.png"]),
        ("a.png, a.png", ["a.png"]),
        ("  ", []),
    ],
)
def test_splits_a_cell_into_its_pictures(cell: str, pictures: list[str], tmp_path: Path) -> None:
    (tmp_path / "odd, name.png").touch()
    assert pictures_of([cell], tmp_path) == pictures


def test_a_path_may_be_written_as_windows_or_an_address_does(tmp_path: Path) -> None:
    (tmp_path / "red mugs").mkdir()
    (tmp_path / "red mugs" / "a.png").touch()
    assert local_path("red mugs\\a.png", tmp_path) == tmp_path / "red mugs/a.png"
    assert local_path(f"file://{tmp_path}/red%20mugs/a.png", tmp_path) == tmp_path / "red mugs/a.png"
    assert local_path("red mugs/a.png", tmp_path) == tmp_path / "red mugs/a.png"


def test_a_slash_in_front_stands_for_the_folder_of_the_pictures(tmp_path: Path) -> None:
    (tmp_path / "m" / "u").mkdir(parents=True)
    (tmp_path / "m" / "u" / "mug.jpg").touch()
    assert local_path("/m/u/mug.jpg", tmp_path) == tmp_path / "m/u/mug.jpg"
    assert local_path(f"{tmp_path}/m/u/mug.jpg", Path("elsewhere")) == tmp_path / "m/u/mug.jpg"


def test_an_address_is_told_by_its_beginning() -> None:
    assert [is_address(text) for text in ("https://x.org/a", "HTTP://x", "//cdn.x.org/a", "a/b.png", "c:\\a.png")] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert host_of("https://user:secret@x.org:8080/a") == "x.org:8080"
    assert host_of("//cdn.x.org/a") == "cdn.x.org"
