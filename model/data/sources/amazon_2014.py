"""Amazon reviews of 1996 to 2014 (McAuley et al. 2015, doi 10.1145/2766462.2767755).

Rows of items are Python literals; categories are a list of paths, each a list. `ratings_X.csv` has no header.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from model.data.files.csv_file import CsvDialect
from model.data.files.table_reader import column_names, kind_of

from .amazon import AmazonSource, addresses, full_size
from .source import LogColumns, attributes


class Amazon2014(AmazonSource):
    """Items and reviews of the edition of 2014."""

    edition: ClassVar[int] = 2014
    item_names: ClassVar[tuple[str, ...]] = ("meta_*.json", "metadata.json")
    review_kinds: ClassVar[tuple[str, ...]] = ("csv", "json")

    headless: ClassVar[tuple[str, ...]] = ("reviewerID", "asin", "overall", "unixReviewTime")
    """Columns of the files of ratings, which have no header."""

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of the reviews."""
        return {
            "user_id": ("reviewerID",),
            "item_id": ("asin",),
            "rating": ("overall",),
            "timestamp": ("unixReviewTime", "reviewTime"),
        }

    def log_dialect(self, path: Path) -> CsvDialect | None:
        """Return the names of the columns of a file of ratings without a header."""
        if kind_of(path) != "csv" or set(self.headless) & set(column_names(path)):
            return None
        return CsvDialect(",", self.headless)

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an item with its picture (`imUrl`)."""
        picture = row.get("imUrl")
        return {
            "item_id": row.get("asin"),
            "title": row.get("title"),
            "description": row.get("description"),
            "categories": row.get("categories"),
            "images": addresses(full_size(picture) if isinstance(picture, str) else None, picture),
            **attributes(row, "price", "brand"),
        }
