"""Preparation from odd files: edges whose IDs do not join, and tables in several folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared
from model.errors import InputError
from tests.model.planted import prepared_of, two_camps, write_pictured_items, write_rows


def edges_config(folder: Path, **options: Any) -> PrepareConfig:
    """Return options with edges that write the IDs a and b in upper case, with blanks."""
    edges = [
        ("A ", "b", "worn"),
        ("b", "a", "worn"),
        ("a", "c", "worn"),
        ("x", "c", "worn"),
        ("A", "a", "worn"),
    ]
    return PrepareConfig(
        items=write_pictured_items(folder, {name: ["Things"] for name in "abc"}),
        edges=write_rows(
            folder / "edges.jsonl", ({"item_a": a, "item_b": b, "relation": r} for a, b, r in edges)
        ),
        relation_texts=write_rows(
            folder / "texts.jsonl", [{"relation": "worn", "description": "Worn together."}]
        ),
        out=folder / "prepared",
        **{"validation_share": 0.0, "test_share": 0.0, **options},
    )


def pairs_and_report(config: PrepareConfig) -> tuple[set[tuple[str, str]], dict[str, Any]]:
    prepared = prepared_of(config)
    report: dict[str, Any] = json.loads((prepared.path / "report.json").read_text())
    return {(edge.item_a, edge.item_b) for edge in prepared.edges}, report


def test_ids_of_edges_that_name_no_item_are_told(tmp_path: Path) -> None:
    pairs, report = pairs_and_report(edges_config(tmp_path))
    assert pairs == {("a", "b"), ("a", "c")}
    assert report["advice"] == [
        "3 edge ends name no item, such as 'A '. Of these, 2 differ only in upper and lower case ('A ' for 'a'). "
        "--repair-ids joins them."
    ]


def test_ids_of_edges_are_repaired(tmp_path: Path) -> None:
    pairs, report = pairs_and_report(edges_config(tmp_path, repair_ids=True))
    assert pairs == {("a", "b"), ("a", "c")}
    assert report["advice"] == [
        "2 edge ends were joined by repaired IDs: 2 differed in upper and lower case ('A ' for 'a').",
        "1 edge end names no item, such as 'x'.",
    ]


@pytest.mark.parametrize("given", ["all", "all/*/items.jsonl"])
def test_pictures_are_found_beside_the_table_that_names_them(given: str, tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    lines = (tmp_path / "items.jsonl").read_text().splitlines(keepends=True)
    for number, part in enumerate((lines[:12], lines[12:])):
        folder = tmp_path / "all" / str(number)
        folder.mkdir(parents=True)
        (folder / "items.jsonl").write_text("".join(part).replace('"image": "', '"image": "p/'))
        (folder / "p").mkdir()
        for line in part:
            name = json.loads(line)["image"]
            shutil.copy(tmp_path / name, folder / "p" / name)
        # A picture of the same name that belongs to an item of the other table.
        other = json.loads(lines[12 if number == 0 else 0])["image"]
        Image.new("RGB", (16, 16), (200, 0, 0)).save(folder / "p" / other)
    prepared: Prepared = prepared_of(config.model_copy(update={"items": (tmp_path / given,)}))
    greys = [Image.open(prepared.path / item.picture).getpixel((8, 8)) for item in prepared.items]
    assert greys == [(shade, shade, shade) for shade in range(24)]


def test_ratings_that_are_no_numbers_are_named_as_the_reason(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    log = config.interactions[0]
    log.write_text(log.read_text().replace("}", ', "rating": "5 stars"}'))
    with pytest.raises(InputError, match="Most rows have no rating that is a number"):
        prepared_of(config.model_copy(update={"min_rating": 4.0}))
