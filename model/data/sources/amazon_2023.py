"""Amazon reviews of 1996 to 2023 (Hou et al. 2024, arXiv 2403.03952).

`parent_asin` is the item: its colours and sizes share it. The reviews are also published as tables of ratings, whole or
divided by time into training, validation and test, which are read together.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from model.data.files.literals import read_object

from .amazon import AmazonSource, addresses, filled
from .source import LogColumns, attributes

_DETAILS = {"Brand": "brand", "Color": "color", "Material": "material", "Manufacturer": "manufacturer"}
"""Entries of `details` that become attributes."""


class Amazon2023(AmazonSource):
    """Items and reviews of the edition of 2023."""

    edition: ClassVar[int] = 2023
    item_names: ClassVar[tuple[str, ...]] = ("meta_*.jsonl", "meta_*.parquet", "meta_*.json")
    review_kinds: ClassVar[tuple[str, ...]] = ("csv", "jsonl", "parquet")

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of the reviews."""
        return {
            "user_id": ("user_id",),
            "item_id": ("parent_asin", "asin"),
            "rating": ("rating",),
            "timestamp": ("timestamp", "sort_timestamp"),
        }

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an item; its features stand in for a missing description, and its main category for categories."""
        main = row.get("main_category")
        return {
            "item_id": row.get("parent_asin"),
            "title": row.get("title"),
            "description": row.get("description") or row.get("features"),
            "categories": row.get("categories") or ([main] if main else []),
            "images": _pictures(row.get("images")),
            **attributes(row, "main_category", "store", "price", "average_rating", "rating_number"),
            **_details(row.get("details")),
        }


def _pictures(images: object) -> list[str]:
    """Return the addresses of the main picture first, then the others.

    `large` (about 500 pixels) comes before `hi_res`, because pictures are stored smaller and it is a tenth of the size.
    """
    if isinstance(images, dict):  # a table has one list for each size
        sizes = {name: list(values) for name, values in images.items() if isinstance(values, list)}
        longest = max(map(len, sizes.values()), default=0)
        images = [
            {name: values[i] for name, values in sizes.items() if i < len(values)} for i in range(longest)
        ]
    if not isinstance(images, list):
        return addresses(images)
    rows = [image for image in images if isinstance(image, dict)]
    rows.sort(key=lambda image: image.get("variant") != "MAIN")
    found = addresses(*([image.get("large"), image.get("hi_res")] for image in rows))
    return found or addresses(*(image.get("thumb") for image in rows), images)


def _details(details: object) -> dict[str, object]:
    """Return the entries of `details`, an object or its JSON, that become attributes."""
    if isinstance(details, str):
        try:
            details = read_object(details)
        except ValueError:
            return {}
    if not isinstance(details, dict):
        return {}
    return {name: filled(details, key) for key, name in _DETAILS.items() if isinstance(details.get(key), str)}
