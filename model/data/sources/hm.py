"""H&M Personalized Fashion Recommendations (Kaggle 2022): articles, transactions and pictures.

IDs of articles have leading zeros. The picture of article 0108775015 is images/010/0108775015.jpg; some articles have
none. A row of the transactions is one purchased piece, so rows repeat; there are no ratings.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from model.data.files.row_ledger import RowLedger

from .source import LogColumns, Source, attributes

ID_DIGITS = 10
"""Number of digits of an article's ID."""

_UNKNOWN = ("", "Unknown", "Undefined")


class HM(Source):
    """Articles and transactions."""

    item_names: ClassVar[tuple[str, ...]] = ("articles*.csv", "articles*.parquet")
    log_names: ClassVar[tuple[str, ...]] = ("transactions*.csv", "transactions*.parquet")

    @cached_property
    def _prefix(self) -> str:
        """Folder of pictures below `pictures`, which may be that folder itself."""
        return "images/" if (self.pictures / "images").is_dir() else ""

    def item(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an article with its picture, if the file exists."""
        article = row.get("article_id")
        article = str(article or "").strip()
        # Other programs write the IDs as numbers, without their leading zeros.
        article = article.zfill(ID_DIGITS) if article else ""
        picture = f"{self._prefix}{article[:3]}/{article}.jpg"
        has_picture = bool(article) and (self.pictures / picture).is_file()
        if not has_picture:
            self.changes["articles without a file of their picture"] += 1
        groups = (row.get(name) for name in ("index_group_name", "product_group_name", "product_type_name"))
        return {
            "item_id": article,
            "title": row.get("prod_name"),
            "description": row.get("detail_desc"),
            "categories": [str(name) for name in groups if name and name not in _UNKNOWN],
            "images": [picture] if has_picture else [],
            **attributes(
                row, "product_type_name", "product_group_name", "colour_group_name", "perceived_colour_value_name",
                "perceived_colour_master_name", "graphical_appearance_name", "department_name", "index_name",
                "index_group_name", "section_name", "garment_group_name",
            ),
        }  # fmt: skip

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of the transactions."""
        return {
            "user_id": ("customer_id",),
            "item_id": ("article_id",),
            "rating": (),
            "timestamp": ("t_dat",),
        }

    def batch(self, batch: pl.DataFrame, ledger: RowLedger) -> pl.DataFrame:
        """Return a batch whose IDs of articles have their leading zeros."""
        return batch.with_columns(pl.col("item_id").str.strip_chars().str.zfill(ID_DIGITS))
