"""MovieLens (Harper and Konstan 2015, doi 10.1145/2827872): 100K, 1M, 10M, and the editions in CSV.

100K has one flag for each genre, 1M and 10M separate cells by `::`, and the later ones are CSV. Titles end with the
year.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from model.data.files.csv_file import CsvDialect
from model.data.prepare_config import ColumnType

from .source import LogColumns, Source, bare_name, one_file

FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""Genres of 100K in the order of their flags in `u.item`."""

_YEAR = re.compile(r"\((\d{4})(?:\s*[-\u2013]\s*\d{0,4})?\)\s*$")

_ITEM_DIALECTS = {
    "u.item": CsvDialect(
        "|", ("movieId", "title", "release_date", "video_release_date", "address", *FLAGS), quotes=False
    ),
    "movies.dat": CsvDialect("::", ("movieId", "title", "genres"), quotes=False),
}

_RATINGS = ("userId", "movieId", "rating", "timestamp")

_LOG_DIALECTS = {
    "u.data": CsvDialect("\t", _RATINGS, quotes=False),
    "ratings.dat": CsvDialect("::", _RATINGS, quotes=False),
}


class MovieLens(Source):
    """Films and ratings of one edition."""

    types: ClassVar[Mapping[str, ColumnType]] = {"year": "integer"}

    item_names: ClassVar[tuple[str, ...]] = ("movies.csv", "movies.dat", "u.item")
    log_names: ClassVar[tuple[str, ...]] = ("ratings.csv", "ratings.dat", "u.data")

    def find_items(self) -> None:
        """Find the films; two editions in one folder are refused, because their numbers of films differ."""
        self.item_files = one_file(self.folder, *self.item_names)

    def find_log(self) -> None:
        """Find the ratings of the edition whose films were found."""
        names = dict(zip(self.item_names, self.log_names, strict=True))
        name = names.get(bare_name(self.item_files[0])) if self.item_files else None
        self.log_files = one_file(self.folder, *((name,) if name else self.log_names))

    def item_dialect(self, path: Path) -> CsvDialect | None:
        """Return the columns of films without a header."""
        return _ITEM_DIALECTS.get(bare_name(path))

    def log_dialect(self, path: Path) -> CsvDialect | None:
        """Return the columns of ratings without a header."""
        return _LOG_DIALECTS.get(bare_name(path))

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of the ratings."""
        return dict(
            zip(("user_id", "item_id", "rating", "timestamp"), ((name,) for name in _RATINGS), strict=True)
        )

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a film with its genres and its year."""
        title = str(row.get("title") or "").strip()
        year = _YEAR.search(title)
        if "genres" in row:
            genres = [name for name in str(row["genres"] or "").split("|") if name != "(no genres listed)"]
        else:
            genres = [name for name in FLAGS[1:] if str(row.get(name)).strip() == "1"]
        return {
            "item_id": row.get("movieId"),
            "title": title,
            "categories": genres,
            "year": int(year[1]) if year else None,
        }
