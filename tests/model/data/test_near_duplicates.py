"""Near-duplicates: which items are in one group, and that no split sees the duplicate of another split's item."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from model.data.near_duplicates import MAX_SHARED_PICTURE, duplicate_groups, normalised_title
from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared
from model.errors import InputError
from model.records import Item, Split
from tests.model.planted import prepared_of, write_rows


def drawing(seed: int, colour: str = "navy") -> Image.Image:
    """Draw ten rectangles at random places."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (96, 96), "white")
    for x, y, width, height in rng.integers(4, 60, size=(10, 4)).tolist():
        ImageDraw.Draw(picture).rectangle(
            (x, y, x + width // 2, y + height // 2), fill=colour, outline="gold"
        )
    return picture


def items_of(folder: Path, shown: Sequence[tuple[str, Image.Image | None]]) -> list[Item]:
    items = []
    for number, (title, picture) in enumerate(shown):
        if picture is not None:
            picture.save(folder / f"{number}.png")
        items.append(Item(str(number), title, "", (), title, "" if picture is None else f"{number}.png"))
    return items


def groups_of(folder: Path, shown: Sequence[tuple[str, Image.Image | None]]) -> list[int]:
    found: list[int] = duplicate_groups(items_of(folder, shown), folder).tolist()
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Red Mug, 300 ml", "red  mug (300 ML)"),
        ("Caf\u00e9 cup", "Cafe\u0301 cup"),
        ("Stra\u00dfe", "STRASSE"),
        ("\uff2d\uff55\uff47", "mug"),
        ("salt_and_pepper", "Salt-and-Pepper!"),
    ],
)
def test_titles_of_the_same_words_are_the_same(one: str, other: str) -> None:
    assert normalised_title(one) == normalised_title(other) != ""


def test_items_with_the_same_title_are_in_the_group_of_the_first(tmp_path: Path) -> None:
    shown = [("mug", None), ("cup", None), ("MUG!", None), ("mugs", None)]
    assert groups_of(tmp_path, shown) == [0, 1, 0, 3]


def test_items_without_words_in_the_title_are_no_duplicates(tmp_path: Path) -> None:
    assert groups_of(tmp_path, [("", None), ("!", None), ("", None)]) == [0, 1, 2]


def test_items_with_the_same_picture_are_in_one_group(tmp_path: Path) -> None:
    shown = [("a", drawing(1)), ("b", drawing(2)), ("c", drawing(1))]
    assert groups_of(tmp_path, shown) == [0, 1, 0]


def test_titles_and_pictures_together_connect_items(tmp_path: Path) -> None:
    # a and c share a title, c and d a picture; b is text-only and shares d's title.
    shown = [
        ("mug", drawing(1)),
        ("cup", None),
        ("mug", drawing(2)),
        ("cup", drawing(2)),
        ("pan", drawing(3)),
    ]
    assert groups_of(tmp_path, shown) == [0, 0, 0, 0, 4]


def test_a_placeholder_picture_of_many_items_connects_none_of_them(tmp_path: Path) -> None:
    few = [(f"thing {n}", drawing(1)) for n in range(MAX_SHARED_PICTURE)]
    assert groups_of(tmp_path, few) == [0] * MAX_SHARED_PICTURE
    many = [(f"thing {n}", drawing(1)) for n in range(MAX_SHARED_PICTURE + 1)]
    assert groups_of(tmp_path, many) == list(range(MAX_SHARED_PICTURE + 1))


def test_a_new_duplicate_joins_the_split_of_the_old_item(tmp_path: Path) -> None:
    old = [(f"thing {n}", drawing(n)) for n in range(12)]
    before = groups_of(tmp_path, old)
    after = groups_of(tmp_path, [*old, ("Thing 7", drawing(50)), ("new", drawing(3))])
    assert after == [*before, 7, 3]


def shop(folder: Path, **options: object) -> PrepareConfig:
    """Write 40 drawings, each in two items with different titles and pictures of another size, taken by one group."""
    folder.mkdir()
    rows = []
    for number in range(80):
        picture = drawing(number // 2)
        if number % 2:
            picture.resize((160, 160), Image.Resampling.LANCZOS).save(folder / f"{number}.jpg", quality=95)
        else:
            picture.save(folder / f"{number}.png")
        image = f"{number}.jpg" if number % 2 else f"{number}.png"
        rows.append(
            {"item_id": f"i{number}", "title": f"Thing {number}", "categories": ["AB"[number % 4 // 2]]}
        )
        rows[-1]["image"] = image
    write_rows(folder / "items.jsonl", rows)
    log = [
        {"user_id": f"u{user}", "item_id": f"i{(user * 3 + step) % 80}", "timestamp": (user * 3 + step) % 80}
        for user in range(80)
        for step in range(12)
    ]
    write_rows(folder / "log.jsonl", log)
    return PrepareConfig(
        items=folder / "items.jsonl",
        interactions=folder / "log.jsonl",
        out=folder / "prepared",
        clusters=2,
        min_npmi=-1.0,
        min_support=1,
        **options,
    )


@pytest.mark.parametrize("split", ["items", "time"])
def test_training_sees_no_test_item_no_duplicate_of_one_and_no_pair_of_one(
    tmp_path: Path, split: str
) -> None:
    prepared = prepared_of(shop(tmp_path / "shop", split=split))
    where = dict(zip((item.item_id for item in prepared.items), prepared.splits, strict=True))
    assert set(where.values()) == set(Split)
    for number in range(0, 80, 2):
        assert where[f"i{number}"] == where[f"i{number + 1}"]
    trained = {
        item for edge in prepared.edges if edge.split == Split.TRAIN for item in (edge.item_a, edge.item_b)
    }
    assert {where[item] for item in trained} == {Split.TRAIN}
    for edge in prepared.edges_across:
        assert {where[edge.item_a], where[edge.item_b]} == {Split.TRAIN, edge.split} != {Split.TRAIN}


def test_by_time_the_items_that_users_took_last_are_tested(tmp_path: Path) -> None:
    prepared = prepared_of(shop(tmp_path / "shop", split="time", validation_share=0.1, test_share=0.2))
    # The time of an interaction is the number of its item.
    splits = {
        int(item.item_id[1:]): split for item, split in zip(prepared.items, prepared.splits, strict=True)
    }
    assert [splits[number] for number in range(80)] == (
        [Split.TRAIN] * 56 + [Split.VALIDATION] * 8 + [Split.TEST] * 16
    )


def test_a_shop_of_one_title_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = shop(tmp_path / "shop", test_share=0.1)
    rows = [json.loads(line) for line in config.items[0].read_text().splitlines()]
    write_rows(tmp_path / "shop" / "items.jsonl", ({**row, "title": "Ring"} for row in rows))
    prepare(config)
    assert "80 items count as near-duplicates of 'i0' (title 'Ring')" in capsys.readouterr().err
    assert len(set(Prepared.open(config.out).splits)) == 1


def test_edges_cannot_be_split_by_time(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--split time needs --interactions"):
        PrepareConfig(
            items=tmp_path, edges=tmp_path, relation_texts=tmp_path, out=tmp_path / "out", split="time"
        )


def test_a_log_without_times_cannot_be_split_by_time(tmp_path: Path) -> None:
    config = shop(tmp_path / "shop", split="time")
    rows = [json.loads(line) for line in config.interactions[0].read_text().splitlines()]
    write_rows(
        tmp_path / "shop" / "log.jsonl", ({"user_id": r["user_id"], "item_id": r["item_id"]} for r in rows)
    )
    with pytest.raises(InputError, match="--split time needs items whose first interactions"):
        prepare(config)
    assert not config.out.exists()
