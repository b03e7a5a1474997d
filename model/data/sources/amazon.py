"""Files and cells that all editions of the Amazon reviews share.

Each category has one file of items (`meta_X`) and, in several forms, the reviews of the same users: whole, reduced to
users and items with five reviews, or as ratings only. One form of each category is read, so that no review counts
twice.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from model.data.files.table_reader import column_names
from model.data.prepare_config import ColumnType
from model.errors import InputError

from .source import RawRow, Source, bare_name, found_files

_REVIEWS = re.compile(
    r"(?:reviews?|ratings)?_?(?P<category>.+?)(?P<core>_5)?(?P<part>\.(?:train|valid|test))?\.(?P<kind>[a-z]+)"
)

_SIZE = re.compile(r"\._[^/]*_(?=\.\w+$)")
"""Part of the address of a picture that asks for a smaller copy, as in `I/51Iph04Jy3L._SX38_SY50_CR,0,0,38,50_.jpg`."""

_NO_PICTURE = re.compile(r"(?i)no[-_]?(?:img|image|photo)")

_MARKUP = re.compile(r"^\s*(?:<[a-zA-Z!/?]|var\s+\w+\s*=|[.#][\w-]+\s*\{)|/>\s*$|\.getTime\(\)|^\W*$")

EDITION_COLUMNS: Mapping[int, frozenset[str]] = {
    2023: frozenset({"parent_asin"}),
    2018: frozenset(
        {"category", "main_cat", "imageURL", "imageURLHighRes", "also_buy", "also_view", "feature"}
    ),
    2014: frozenset({"imUrl", "categories", "related"}),
}
"""Columns of the items of each edition that the editions below it lack; `categories` is also one of 2023."""

_TAG = re.compile(r"</?\w[^<>]*>")


class AmazonSource(Source):
    """Files of one edition of the Amazon reviews, of one category or several."""

    edition: ClassVar[int]
    """Year of the edition."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        "price": "number",
        "average_rating": "number",
        "rating_number": "integer",
    }

    item_names: ClassVar[tuple[str, ...]] = ("meta_*.jsonl", "meta_*.json", "meta_*.parquet")

    review_kinds: ClassVar[tuple[str, ...]] = ("csv", "jsonl", "json", "parquet")
    """Suffixes of the files of reviews, the preferred one first."""

    def find_log(self) -> None:
        """Find one form of the reviews of each category that has a file of items.

        The form with five reviews per user and item is preferred, because its user downloaded it beside the whole, then
        the order of `review_kinds`. Forms and categories that are not read are noted at the files of the same category.

        Raises:
            InputError: there are no reviews.
        """
        patterns = [f"*.{kind}" for kind in self.review_kinds]
        forms: dict[str, dict[tuple[bool, int, bool], list[Path]]] = defaultdict(lambda: defaultdict(list))
        for pattern in patterns:
            for path in found_files(self.folder, pattern, needed=False):
                name = bare_name(path)
                found = _REVIEWS.fullmatch(name)
                if found and not name.startswith(("meta_", "metadata.", "all_amazon_meta.")):
                    rank = (not found["core"], self.review_kinds.index(found["kind"]), bool(found["part"]))
                    forms[found["category"]][rank].append(path)
        if not forms:
            found_files(self.folder, *(f"<category>.{kind}" for kind in self.review_kinds))
        metas = {_category(path): path for path in self.item_files}
        known = {category: ranked for category, ranked in forms.items() if category in metas} or dict(forms)
        self.log_files = []
        for _, ranked in sorted(known.items()):
            best, *others = (ranked[rank] for rank in sorted(ranked))
            self.log_files += best
            for path in (path for other in others for path in other):
                self.remarks[best[0]].append(
                    f"{path.name} was not read: it has the reviews of the same category"
                )
        for category, meta in metas.items():
            if category not in known and len(metas) > 1:
                self.remarks[meta].append("the folder has no reviews of this category")
        for category in sorted(set(forms) - set(known)):
            names = ", ".join(path.name for rank in forms[category].values() for path in rank)
            self.remarks[self.log_files[0]].append(
                f"{names} was not read: the folder has no meta_ file for it"
            )

    def items(self) -> Iterator[RawRow]:
        """Yield the rows of all files of items.

        Raises:
            InputError: a file is of another edition, whose categories or pictures would be lost.
        """
        for path in self.item_files:
            names = set(column_names(path))
            edition = next(
                (year for year, columns in EDITION_COLUMNS.items() if names & columns), self.edition
            )
            if edition != self.edition:
                raise InputError(
                    f"{path} has columns of another edition: {', '.join(sorted(names & EDITION_COLUMNS[edition]))}. "
                    f"Use --source amazon-{edition}."
                )
        yield from super().items()

    def unmarked(self, value: object, what: str) -> object:
        """Return `value`, or None if it is markup of a web page instead of a text, which is counted."""
        if isinstance(value, str) and value and is_markup(value):
            self.changes[f"{what} that were markup of a web page left out"] += 1
            return None
        return value


def _category(meta: Path) -> str:
    name = bare_name(meta)
    return (
        name.removeprefix("meta_").partition(".")[0] if name.startswith("meta_") else name.partition(".")[0]
    )


def is_markup(text: str) -> bool:
    """Tell whether `text` is a torn-off piece of a web page: nothing is left without tags, or a tag is not closed."""
    bare = _TAG.sub("", text)
    return bool(_MARKUP.search(bare)) and ("<" in text or ">" in text or "{" in text or "=" in text)


def full_size(address: str) -> str:
    """Return the address of the full picture for that of a smaller copy."""
    return _SIZE.sub("", address)


def addresses(*groups: object) -> list[str]:
    """Return the addresses in `groups`, each one address or a list, without repeats and stand-ins for no picture."""
    found: list[str] = []
    for group in groups:
        parts: Iterable[object] = group if isinstance(group, list | tuple) else (group,)
        found += [part for part in parts if isinstance(part, str) and part and not _NO_PICTURE.search(part)]
    return list(dict.fromkeys(found))


def filled(row: Mapping[str, Any], *names: str) -> Any:
    """Return the first cell of `names` that is not empty, or None."""
    return next((row[name] for name in names if row.get(name)), None)
