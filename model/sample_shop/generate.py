"""Generator of the sample shop: items with pictures, shoppers with purchases, and the planted truth.

    shop/
      items.jsonl         item_id, title, description, categories, image
      interactions.csv    user_id, item_id, timestamp (seconds)
      images/             one PNG per item
      truth.json          groups, cells of true partners, group and style of each shopper, attributes of each item
      manifest.json config.json

Everything is derived from the seed, and nothing is downloaded. `rcml demo` runs the generator and then processes the
files like those of any other shop.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from model.artifact import write_artifact
from model.config import ShopConfig
from model.console import progress
from model.worker_pools import available_cores, process_pool, start_context

from .assortment import CATEGORIES, CATEGORY_SHARES, GROUPS, STYLES, Good, Group
from .draw import draw

MEAN_PURCHASES = 26
"""Mean number of purchases per shopper."""

LOYAL_SHARE = 0.88
"""Share of purchases that follow the group and style of the shopper; the rest are spread over the whole shop."""

MIN_FOR_PROCESSES = 600
"""Minimum number of pictures for which several processes draw; a picture takes about 12 ms, a process 1 s to start."""

CHUNK = 16
"""Pictures that a process draws at a time."""

OPENING_TIME_S = 1_700_000_000
YEAR_S = 365 * 24 * 3600


def make_shop(config: ShopConfig) -> str:
    """Write the shop to `config.out` and return a one-line summary."""
    rng = np.random.default_rng(config.seed)
    goods = stock(config.items, rng)
    shoppers = [
        (f"u{number:05d}", group, str(rng.choice(list(STYLES[group.facet]))))
        for number, group in enumerate(GROUPS[i % len(GROUPS)] for i in range(config.shoppers))
    ]
    with write_artifact(config.out, "shop", config) as draft:
        _write_items(draft.path, goods, rng)
        purchases = _write_interactions(draft.path, goods, shoppers, rng)
        _write_truth(draft.path, goods, shoppers)
        draft.counts.update(items=len(goods), shoppers=len(shoppers), purchases=purchases)
    return f"Wrote {len(goods)} items, {len(shoppers)} shoppers and {purchases} purchases to {config.out}."


def stock(count: int, rng: np.random.Generator) -> list[Good]:
    """Choose `count` distinct goods, with nearly equal numbers of each kind and random values of each facet."""
    styles = list(product(*(sum(STYLES[facet].values(), ()) for facet in ("colour", "pattern", "emblem"))))
    kinds = [(category, kind) for category, kinds in CATEGORIES.items() for kind in kinds]
    chosen: list[tuple[str, str, str, str, str]] = []
    for position, (category, kind) in enumerate(kinds):
        share = count // len(kinds) + (position < count % len(kinds))
        picks = rng.choice(len(styles), size=share, replace=False)
        chosen += [(category, kind, *styles[pick]) for pick in picks]
    order = rng.permutation(len(chosen))
    return [Good(f"i{number:04d}", *chosen[pick]) for number, pick in enumerate(order)]


def describe(good: Good, rng: np.random.Generator) -> tuple[str, str]:
    """Return a plain-English title and description of `good`, in one of several wordings."""
    titles = (
        f"{good.colour} {good.pattern} {good.kind} with a {good.emblem}",
        f"{good.pattern} {good.kind} in {good.colour} with {good.emblem}",
        f"{good.kind}, {good.colour}, {good.pattern}, {good.emblem} motif",
        f"{good.emblem} {good.kind} in {good.pattern} {good.colour}",
    )
    closings = ("Made to last.", "A good present.", "Wipes clean.", "Light and sturdy.")
    title = str(rng.choice(titles))
    article = "An" if good.colour[0] in "aeiou" else "A"
    description = (
        f"{article} {good.colour} {good.kind} for {good.category.lower()}, {good.pattern}, "
        f"with a little {good.emblem} on it. {rng.choice(closings)}"
    )
    return title[0].upper() + title[1:], description


def cells(goods: Iterable[Good]) -> list[dict[str, Any]]:
    """Return the planted truth: one cell per group and style, which lists the items that go together.

    Any two items of a cell are true partners under the group of the cell.
    """
    goods = list(goods)
    return [
        {
            "group": group.name,
            "style": style,
            "items": [
                good.item_id
                for good in goods
                if good.category in group.categories and good.style(group.facet) == style
            ],
        }
        for group in GROUPS
        for style in STYLES[group.facet]
    ]


def _write_items(folder: Path, goods: list[Good], rng: np.random.Generator) -> None:
    (folder / "images").mkdir()
    images = progress(draw_pictures(folder, goods), "drawing pictures", len(goods))
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        for good, image in zip(goods, images, strict=True):
            title, description = describe(good, rng)
            row = {
                "item_id": good.item_id,
                "title": title,
                "description": description,
                "categories": [good.category],
                "image": image,
            }
            file.write(json.dumps(row) + "\n")


def draw_pictures(folder: Path, goods: Sequence[Good], workers: int | None = None) -> Iterator[str]:
    """Draw the picture of each of `goods` and yield its path below `folder`, in order.

    Many pictures are drawn by a process for each core, or by `workers` processes. The files are the same.
    """
    if workers is None:
        workers = available_cores() if len(goods) >= MIN_FOR_PROCESSES else 1
    draw_one = partial(_draw_picture, folder)
    if workers == 1:
        yield from map(draw_one, range(len(goods)), goods)
        return
    with process_pool(workers, start_context([__name__])) as pool:
        yield from pool.map(draw_one, range(len(goods)), goods, chunksize=CHUNK)


def _draw_picture(folder: Path, pose: int, good: Good) -> str:
    image = f"images/{good.item_id}.png"
    picture = draw(good.kind, good.colour, good.pattern, good.emblem, pose=pose)
    picture.save(folder / image, compress_level=1)
    return image


def _write_interactions(
    folder: Path, goods: list[Good], shoppers: list[tuple[str, Group, str]], rng: np.random.Generator
) -> int:
    popularity = rng.lognormal(0.0, 0.4, size=len(goods))
    wishes = {
        (group.name, style): _wish(goods, group, style, popularity)
        for group in GROUPS
        for style in STYLES[group.facet]
    }
    anything = popularity / popularity.sum()
    written = 0
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("user_id", "item_id", "timestamp"))
        for user_id, group, style in shoppers:
            chances = LOYAL_SHARE * wishes[group.name, style] + (1 - LOYAL_SHARE) * anything
            count = min(max(5, int(rng.poisson(MEAN_PURCHASES))), int(np.count_nonzero(chances)))
            picks = rng.choice(len(goods), size=count, replace=False, p=chances)
            times = OPENING_TIME_S + rng.integers(0, YEAR_S, size=count)
            for pick, time in zip(picks, times, strict=True):
                table.writerow((user_id, goods[pick].item_id, time))
            written += count
    return written


def _wish(goods: list[Good], group: Group, style: str, popularity: np.ndarray) -> np.ndarray:
    """Return the probability that a shopper of `group` and `style` buys each item next; float64 `[items]`, sum 1."""
    wish = np.zeros(len(goods))
    for category, share in zip(group.categories, CATEGORY_SHARES, strict=True):
        liked = np.array([good.category == category and good.style(group.facet) == style for good in goods])
        if liked.any():
            wish[liked] = share * popularity[liked] / popularity[liked].sum()
    return np.asarray(wish / wish.sum()) if wish.any() else popularity / popularity.sum()


def _write_truth(folder: Path, goods: list[Good], shoppers: list[tuple[str, Group, str]]) -> None:
    truth = {
        "groups": [asdict(group) for group in GROUPS],
        "cells": cells(goods),
        "shoppers": {user: {"group": group.name, "style": style} for user, group, style in shoppers},
        "goods": {good.item_id: asdict(good) for good in goods},
    }
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
