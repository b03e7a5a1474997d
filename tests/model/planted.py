"""Small catalogues with a known structure, written as the raw files of a shop."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

from PIL import Image

from model.config import SmallBackbone, TrainConfig
from model.data.prepare import prepare
from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared

COLOURS = ("red", "green", "blue", "black", "white", "orange")
SHAPES = ("mug", "hat", "kite", "drum", "vase", "tent")
COPIES = 3

CAMPS_SEED = 33
"""Seed with exactly 6 test items and one validation item of each group in `two_camps`."""

EVEN_SEED = 30
"""Seed with 4 items in each split of `edges_only_config`."""

TINY = SmallBackbone(width=32, text_layers=1, image_layers=1, image_size=32, patch_size=16, vocabulary=600)
"""Smallest CLIP that can still learn something, with 0.1 M parameters."""


def write_catalogue(folder: Path) -> None:
    """Write items of 6 colours and 6 shapes; `colour` relates items of equal colour, `shape` items of equal shape.

    Copies have numbers in their titles. Otherwise they would count as near-duplicates, which are in one split.
    """
    goods = [
        (f"{colour}-{shape}-{copy}", colour, f"{shape} {copy}")
        for colour, shape, copy in product(COLOURS, SHAPES, range(COPIES))
    ]
    (folder / "images").mkdir(parents=True)
    for item_id, colour, _ in goods:
        Image.new("RGB", (32, 32), colour).save(folder / "images" / f"{item_id}.png")
    write_rows(
        folder / "items.jsonl",
        (
            {
                "item_id": item_id,
                "title": f"{colour} {shape}",
                "categories": [shape.split()[0]],
                "image": f"images/{item_id}.png",
            }
            for item_id, colour, shape in goods
        ),
    )
    write_rows(
        folder / "edges.jsonl",
        (
            {"item_a": a[0], "item_b": b[0], "relation": relation}
            for a, b in combinations(goods, 2)
            for relation, facet in (("colour", 1), ("shape", 2))
            if a[facet].split()[0] == b[facet].split()[0]
        ),
    )
    write_rows(
        folder / "texts.jsonl",
        [
            {"relation": "colour", "description": "These two have the same colour."},
            {"relation": "shape", "description": "These two are things of one kind."},
        ],
    )


def prepare_catalogue(folder: Path, seed: int = 0) -> Path:
    """Write and prepare the catalogue with a third of the items in each split, and return the prepared folder."""
    write_catalogue(folder)
    config = PrepareConfig(
        items=folder / "items.jsonl",
        edges=folder / "edges.jsonl",
        relation_texts=folder / "texts.jsonl",
        out=folder / "prepared",
        text_fields=("title",),
        validation_share=0.33,
        test_share=0.33,
        seed=seed,
    )
    prepare(config)
    return config.out


def tiny_training(prepared: Path | tuple[Path, ...], out: Path, **options: Any) -> TrainConfig:
    """Return options for a training run of about one second."""
    chosen: dict[str, Any] = {"small": TINY, "steps": 4, "batch_size": 64, "device": "cpu", **options}
    return TrainConfig(prepared=prepared, out=out, **chosen)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write `rows` as .jsonl and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_pictured_items(folder: Path, categories: Mapping[str, Sequence[str]]) -> Path:
    """Write items with the given IDs and categories, each with a picture in a different grey; return items.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for shade, item_id in enumerate(categories):
        Image.new("RGB", (16, 16), (shade, shade, shade)).save(folder / f"{item_id}.png")
    return write_rows(
        folder / "items.jsonl",
        (
            {"item_id": item_id, "title": f"Thing {item_id}", "categories": names, "image": f"{item_id}.png"}
            for item_id, names in categories.items()
        ),
    )


def write_log(path: Path, taken: Mapping[str, Iterable[str]]) -> Path:
    """Write an interaction log of the items that each user took, in the given order."""
    return write_rows(
        path, ({"user_id": user, "item_id": item} for user, items in taken.items() for item in items)
    )


def two_camps(folder: Path) -> PrepareConfig:
    """Write 24 items and 40 users in two groups, readers and cooks; each user takes 8 of the group's 12 items."""
    camps = {"Books": [f"b{n:02d}" for n in range(12)], "Pans": [f"p{n:02d}" for n in range(12)]}
    items = write_pictured_items(folder, {item: [camp] for camp, own in camps.items() for item in own})
    taken = {
        f"{camp}-{user:02d}": [own[(user * 5 + step) % 12] for step in range(8)]
        for camp, own in camps.items()
        for user in range(20)
    }
    log = write_log(folder / "log.jsonl", taken)
    return PrepareConfig(
        items=items,
        interactions=log,
        out=folder / "prepared",
        clusters=2,
        test_share=0.25,
        min_npmi=-1.0,
        seed=CAMPS_SEED,
    )


def prepared_of(config: PrepareConfig) -> Prepared:
    """Run `prepare` and open the prepared data."""
    prepare(config)
    return Prepared.open(config.out)


def edges_only_config(
    folder: Path, edges: Sequence[tuple[str, str]] | None = None, **options: Any
) -> PrepareConfig:
    """Write twelve items with edges of one relation; by default, all pairs of items are related."""
    names = "abcdefghijkl"
    pairs = list(combinations(names, 2)) if edges is None else edges
    items = write_pictured_items(folder, {name: ["Things"] for name in names})
    rows = [{"item_a": a, "item_b": b, "relation": "worn"} for a, b in pairs]
    return PrepareConfig(
        items=items,
        edges=write_rows(folder / "edges.jsonl", rows),
        relation_texts=write_rows(
            folder / "texts.jsonl", [{"relation": "worn", "description": "Worn together."}]
        ),
        out=folder / "prepared",
        **{"validation_share": 0.3, "test_share": 0.3, "seed": EVEN_SEED, **options},
    )
