"""Amazon reviews of 1996 to 2018 (Ni et al. 2019, doi 10.18653/v1/D19-1018).

Its items were taken from web pages, so titles, prices and categories may be pieces of markup, and pictures have one
of three names. `X.csv` has no header and names the item first.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from .amazon import addresses, filled, full_size, is_markup
from .amazon_2014 import Amazon2014
from .source import SkipRow, attributes

_ALTERNATIVE = re.compile(r'\balt="([^"]+)"')


class Amazon2018(Amazon2014):
    """Items and reviews of the edition of 2018."""

    edition: ClassVar[int] = 2018
    item_names: ClassVar[tuple[str, ...]] = ("meta_*.json", "all_amazon_meta.json")
    headless: ClassVar[tuple[str, ...]] = ("asin", "reviewerID", "overall", "unixReviewTime")

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an item without markup.

        Raises:
            SkipRow: the title is markup of a web page.
        """
        title = row.get("title")
        if isinstance(title, str) and title and is_markup(title):
            raise SkipRow("the title is markup of a web page", title.strip(), row.get("asin"))
        small = addresses(filled(row, "imageURL", "image"))
        main = self._main_category(row.get("main_cat"))
        brand = row.get("brand")
        return {
            "item_id": row.get("asin"),
            "title": title,
            "description": row.get("description") or row.get("feature"),
            "categories": self._categories(row) or ([main] if main else []),
            "images": addresses(filled(row, "imageURLHighRes"), [full_size(each) for each in small], small),
            **attributes({**row, "price": self.unmarked(row.get("price"), "prices")}, "price"),
            "brand": re.sub(r"^by\s*\n\s*", "", brand) if isinstance(brand, str) else None,
            "main_cat": main,
        }

    def _categories(self, row: Mapping[str, Any]) -> list[str]:
        """Return the categories without the product's features, which follow them in many rows."""
        names = row.get("category") or row.get("categories") or []
        if not isinstance(names, list):
            return [str(names)]
        features = row.get("feature") or []
        kept = []
        for name in names:
            if isinstance(name, str) and "</" in name:
                break
            if not (isinstance(name, str) and (name in features or _is_sentence(name))):
                kept.append(name)
        if len(kept) < len(names):
            self.changes["categories that were features or markup left out"] += len(names) - len(kept)
        return kept

    def _main_category(self, name: object) -> str | None:
        """Return the main category; that of Fashion is written as a picture with an alternative text."""
        if not isinstance(name, str) or not name:
            return None
        found = _ALTERNATIVE.search(name)
        return found[1].title() if found else str(self.unmarked(name, "main categories") or "") or None


def _is_sentence(name: str) -> bool:
    return name.rstrip().endswith(".") and len(name.split()) > 3
