"""Shopify's exports of products and orders.

A product has one row for each variant and picture, joined by its handle, which is the ID of the item. Orders name the
variant by SKU, or by `Title - Variant` if it has none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names, read_rows, read_strings
from model.data.prepare_config import ColumnType
from model.errors import InputError

from .orders import ProductIndex, as_log, whole_orders, without_lost_orders
from .source import LogColumns, RawRow, Source, refuse_empty, set_aside

_NAMES = {
    "url handle": "handle",
    "body (html)": "description",
    "variant sku": "sku",
    "variant price": "price",
    "variant compare at price": "compare at price",
    "variant barcode": "barcode",
    "image src": "image",
    "product image url": "image",
    "variant image url": "variant image",
    "compare-at price": "compare at price",
}
"""Names of columns, in lower case, that differ between the old and the new layout."""

_LOST = {
    "the order was refunded": ("refunded",),
    "the order was not paid": ("voided", "expired"),
}
"""Financial statuses of orders that are no purchases. A pending one is: it is paid on delivery or by transfer."""

_GOOD = ("paid", "partially_paid", "partially_refunded", "authorized", "pending")


@dataclass
class _Product:
    """Rows of one product. The first row with a value counts."""

    ledger: RowLedger
    line: int
    rows: int = 0
    cells: dict[str, str] = field(default_factory=dict)
    images: list[tuple[int, str]] = field(default_factory=list)
    variant_images: list[str] = field(default_factory=list)
    variants: list[tuple[str, str]] = field(default_factory=list)
    """SKU and name of each variant."""

    def add(self, cells: Mapping[str, str]) -> None:
        self.rows += 1
        self.cells = {**cells, **self.cells}
        if image := cells.get("image"):
            position = cells.get("image position", "")
            self.images.append((int(position) if position.isdecimal() else 1_000 + len(self.images), image))
        if image := cells.get("variant image"):
            self.variant_images.append(image)
        values = [cells[f"option{i} value"] for i in (1, 2, 3) if cells.get(f"option{i} value")]
        if values or cells.get("sku"):
            name = " / ".join(values)
            self.variants.append((cells.get("sku", ""), "" if name == "Default Title" else name))

    def item(self, handle: str) -> dict[str, Any]:
        """Return the cells of the item."""
        path, kind = self.cells.get("product category", ""), self.cells.get("type", "")
        categories = [] if path == "Uncategorized" else path.split(" > ")
        categories = [name for name in (*categories, kind) if name]
        images = [image for _, image in sorted(self.images, key=lambda found: found[0])]
        names = ("vendor", "type", "price", "compare at price", "sku", "barcode", "tags")
        return {
            "item_id": handle,
            "title": self.cells.get("title"),
            "description": self.cells.get("description"),
            "categories": categories or [tag.strip() for tag in self.cells.get("tags", "").split(",")],
            "images": list(dict.fromkeys([*images, *self.variant_images])),
            **{name.replace(" ", "_"): self.cells.get(name) for name in names},
        }


class Shopify(Source):
    """Products and orders of a Shopify shop."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        "price": "number",
        "compare_at_price": "number",
        "sku": "text",
        "barcode": "text",
    }

    item_names: ClassVar[tuple[str, ...]] = ("products_export*", "*product*.csv")
    log_names: ClassVar[tuple[str, ...]] = ("orders_export*", "*order*.csv")

    @cached_property
    def _products(self) -> dict[str, _Product]:
        """Products by handle, in the order of the files."""
        products: dict[str, _Product] = {}
        for path in self.item_files:
            ledger = self.ledger(path)
            for line, row in read_rows(path, ledger):
                cells = _cells(row)
                if "handle" not in cells and "title" not in cells:
                    _check(path, tuple(row))
                handle = cells.get("handle", "")
                if not handle:
                    ledger.skip("the row has no Handle", line, cells.get("title", ""))
                    continue
                products.setdefault(handle, _Product(ledger, line)).add(cells)
            refuse_empty(ledger)
        return products

    def items(self) -> Iterator[RawRow]:
        """Yield one row for each product; drafts and archived products are set aside with all their rows."""
        for handle, product in self._products.items():
            status = product.cells.get("status", "active").lower()
            title = product.cells.get("title", "")
            if status in ("draft", "archived") or not title:
                self.skipped_items.add(handle)
            if status in ("draft", "archived"):
                product.ledger.skip(
                    f"the product's Status is {status}", product.line, title, count=product.rows
                )
            elif not title:
                product.ledger.skip(
                    "no row of the Handle has a Title", product.line, handle, count=product.rows
                )
            else:
                product.ledger.note("rows of the same Handle (variants and pictures) are one item")
                yield product.ledger, product.line, product.item(handle)

    @cached_property
    def _index(self) -> ProductIndex:
        """Handles by SKU, and by title with and without the variant, as orders write it."""
        index = ProductIndex()
        for handle, product in self._products.items():
            title = product.cells.get("title", "")
            index.add("name", title, handle)
            for sku, variant in product.variants:
                index.add("sku", sku, handle)
                if variant:
                    index.add("name", f"{title} - {variant}", handle)
        return index

    def log_columns(self, path: Path) -> LogColumns:
        """Return the columns of orders, of which `interactions` makes those of a log.

        Raises:
            InputError: the file has no line items.
        """
        names = column_names(path)
        if "Lineitem name" not in names and "Lineitem sku" not in names:
            raise InputError(
                f"{path} has no column 'Lineitem name', so it is no export of orders. In Shopify, export Orders as "
                f"CSV. The file has: {', '.join(names)}."
            )
        return {
            "order": ("Name",),
            "user_id": ("Email",),
            "status": ("Financial Status",),
            "cancelled": ("Cancelled at",),
            "sku": ("Lineitem sku",),
            "name": ("Lineitem name",),
            "timestamp": ("Created at", "Paid at"),
        }

    def check_log(self) -> None:
        """Refuse files without line items. Orders need no user.

        Raises:
            InputError: a file has no line items.
        """
        for path in self.log_files:
            self.log_columns(path)

    def interactions(self) -> Iterator[tuple[RowLedger, pl.DataFrame]]:
        """Yield the line items of each file; cancelled, refunded and unpaid orders are set aside."""
        for path in self.log_files:
            ledger = self.ledger(path)
            lines = whole_orders(pl.concat(read_strings(path, ledger, self.log_columns(path))))
            lines = set_aside(
                lines, ledger, pl.col("cancelled").is_not_null(), "the order was cancelled", "order"
            )
            lines, advice = without_lost_orders(lines, ledger, _LOST, _GOOD)
            self.advice += advice
            nothing = pl.col("sku").is_null() & pl.col("name").is_null()
            lines = set_aside(lines, ledger, nothing, "the row has no line item", "order")
            lines = lines.with_columns(pl.col("name").str.extract(r"^(.*) - .*$").alias("title"))
            kinds = [("sku", "sku"), ("name", "name"), ("title", "name")]
            yield ledger, as_log(self._index.items_of(lines, kinds))
            refuse_empty(ledger)


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the filled cells under the names of one layout, in lower case."""
    cells: dict[str, str] = {}
    for name, cell in row.items():
        lowered = name.strip().lower()
        # Spreadsheets keep the leading zeros of a code behind an apostrophe.
        if text := str(cell or "").strip().removeprefix("'"):
            cells.setdefault(_NAMES.get(lowered, lowered), text)
    return cells


def _check(path: Path, names: tuple[str, ...]) -> None:
    """Refuse a file that is no export of products."""
    lowered = {_NAMES.get(name.strip().lower(), name.strip().lower()) for name in names}
    if "handle" not in lowered or "title" not in lowered:
        raise InputError(
            f"{path} has no columns 'Handle' and 'Title', so it is no export of products. In Shopify, export Products "
            f"as CSV. The file has: {', '.join(names)}."
        )
