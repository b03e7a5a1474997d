r"""WooCommerce's export of products, and the exports of orders that shops have.

Variations are joined to their product, which they name as `id:12` or by its SKU. WooCommerce itself exports orders only
for analysis, with all products in one cell; its REST API and plug-ins give one row or object for each line item, or
columns such as `line_item_1` with `name:Mug|product_id:12|sku:M-1|quantity:1`. All of these are read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from model.data.files.literals import as_text
from model.data.files.row_ledger import RowLedger
from model.data.files.table_reader import column_names, kind_of, read_rows, read_strings
from model.data.prepare_config import ColumnType
from model.errors import InputError

from .orders import ProductIndex, as_log, whole_orders, without_lost_orders
from .source import LogColumns, RawRow, Source, refuse_empty, set_aside

_LOST = {
    "the order was cancelled": ("cancelled", "canceled", "trash", "wc-cancelled"),
    "the order was refunded": ("refunded", "wc-refunded"),
    "the order was not paid": (
        "failed", "pending", "pending payment", "checkout-draft", "draft", "wc-failed",
        "wc-pending", "wc-checkout-draft",
    ),
}  # fmt: skip
"""Statuses of orders that are no purchases. One on hold is: it is paid by transfer. A pending one was abandoned."""

_GOOD = ("completed", "processing", "on-hold", "on hold", "wc-completed", "wc-processing", "wc-on-hold")

_ORDER_COLUMNS: LogColumns = {
    "order": ("order_number", "Order Number", "order_id", "Order ID", "Order #", "Order number", "number"),
    "status": ("status", "order_status", "Order Status", "Status"),
    "user_id": (
        "billing_email", "customer_email", "Email (Billing)", "Billing Email Address", "Customer Email", "email",
        "Email", "Billing email",
    ),
    "customer": ("customer_id", "Customer User ID", "customer_user", "Customer ID", "Customer"),
    "variation": ("variation_id", "item_variation_id", "Variation ID", "Variation Id"),
    "product": ("product_id", "item_product_id", "Product ID", "Product Id"),
    "sku": ("sku", "item_sku", "SKU", "Item SKU", "Product SKU"),
    "name": ("name", "item_name", "product_name", "Item Name", "Product Name", "Item"),
    "timestamp": ("date_created_gmt", "date_created", "order_date", "date", "Order Date", "Date", "Date created"),
    "products": ("Product(s)", "Products", "product(s)"),
}  # fmt: skip
"""Names that the columns of orders have in the exports, of line items first."""

_LINE_ITEM = re.compile(r"(?i)line_item_\d+")

_FURTHER_PRODUCT = r",\s*(\d+\s*[\u00d7x]\s)"

_QUANTITY = r"^\d+\s*[\u00d7x]\s*"

_PATHS = re.compile(r"(?<!\\),\s*")


@dataclass
class _Product:
    """Product with its variations. A cell that it lacks, such as the price, is that of the first variation with one."""

    ledger: RowLedger
    line: int
    cells: dict[str, str]
    variations: list[dict[str, str]] = field(default_factory=list)

    @property
    def item_id(self) -> str:
        return self.cells.get("ID") or self.cells.get("SKU") or ""

    def item(self) -> dict[str, Any]:
        """Return the cells of the item."""
        rows = (self.cells, *self.variations)

        def first(*names: str) -> str | None:
            return next((row[name] for row in rows for name in names if row.get(name)), None)

        paths = _PATHS.split(self.cells.get("Categories", ""))
        texts = (self.cells.get(name, "") for name in ("Short description", "Description"))
        images = (re.split(r",\s*(?=https?:)|,\s+", row.get("Images", "")) for row in rows)
        return {
            "item_id": self.item_id,
            "title": self.cells.get("Name"),
            "description": [text.replace("\\n", "\n") for text in texts if text],
            "categories": list(
                dict.fromkeys(
                    name.strip().replace("\\,", ",") for path in paths for name in path.split(" > ")
                    if name.strip() not in ("", "Uncategorized")
                )
            ),
            "images": list(dict.fromkeys(image.strip() for some in images for image in some if image.strip())),
            "price": first("Sale price", "Regular price"),
            "regular_price": first("Regular price"),
            "sku": self.cells.get("SKU"),
            "stock": first("Stock"),
            "brand": self.cells.get("Brands"),
            "tags": self.cells.get("Tags"),
            **self._attributes(),
        }  # fmt: skip

    def _attributes(self) -> dict[str, str]:
        """Return the product's own attributes, such as its colours, under their names in lower case."""
        own: dict[str, str] = {}
        for i in range(1, 20):
            name, values = self.cells.get(f"Attribute {i} name"), self.cells.get(f"Attribute {i} value(s)")
            if name and values:
                own[re.sub(r"\W+", "_", name.lower()).strip("_")] = values.replace("\\,", ",")
        taken = (
            "item_id",
            "title",
            "description",
            "categories",
            "images",
            "price",
            "sku",
            "stock",
            "brand",
            "tags",
        )
        return {name: values for name, values in own.items() if name and name not in taken}


class WooCommerce(Source):
    """Products and orders of a WooCommerce shop."""

    types: ClassVar[Mapping[str, ColumnType]] = {
        "price": "number",
        "regular_price": "number",
        "sku": "text",
        "stock": "number",
    }

    item_names: ClassVar[tuple[str, ...]] = ("wc-product-export*", "*product*.csv")
    log_names: ClassVar[tuple[str, ...]] = ("*order*.csv", "*order*.json", "*order*.jsonl")

    @cached_property
    def _products(self) -> list[_Product]:
        """Products with their variations, in the order of the files.

        Raises:
            InputError: a file is no export of products, or one in another language.
        """
        products: dict[str, _Product] = {}
        by_sku: dict[str, _Product] = {}
        variations: list[tuple[RowLedger, int, dict[str, str]]] = []
        for path in self.item_files:
            ledger = self.ledger(path)
            for line, row in read_rows(path, ledger):
                if "Name" not in row or not ("ID" in row or "SKU" in row):
                    raise InputError(
                        f"{path} has no columns 'Name' and 'ID'. Export the products in WooCommerce with English as "
                        "the language of your profile, or use --source table and --columns. The file has: "
                        f"{', '.join(row)}."
                    )
                cells = {
                    name.strip(): text for name, cell in row.items() if (text := str(cell or "").strip())
                }
                if "variation" in cells.get("Type", "").lower():
                    variations.append((ledger, line, cells))
                    continue
                product = _Product(ledger, line, cells)
                if not product.item_id:
                    ledger.skip("the row has neither ID nor SKU", line, cells.get("Name", ""))
                elif product.item_id in products:
                    ledger.skip("the ID is that of an earlier row", line, product.item_id)
                else:
                    products[product.item_id] = product
                    by_sku.setdefault(cells.get("SKU", ""), product)
            refuse_empty(ledger)
        for ledger, line, cells in variations:
            parent = cells.get("Parent", "")
            found = (
                products.get(parent[3:].strip()) if parent.lower().startswith("id:") else by_sku.get(parent)
            )
            if found is None or not parent:
                ledger.skip("the product of the variation (Parent) is not in the file", line, parent)
            else:
                found.variations.append(cells)
                ledger.note("variations are joined to their product")
        return list(products.values())

    def items(self) -> Iterator[RawRow]:
        """Yield the products; those that are not published are set aside with their variations."""
        for product in self._products:
            published = product.cells.get("Published", "1").lower()
            if published in ("0", "-1", "false", "no"):
                reason = "the product is not published (Published)"
                title = product.cells.get("Name", "")
                self.skipped_items.add(product.item_id)
                product.ledger.skip(reason, product.line, title, count=1 + len(product.variations))
            else:
                yield product.ledger, product.line, product.item()

    @cached_property
    def _index(self) -> ProductIndex:
        """IDs of products by their own ID, SKU or name, and by those of their variations."""
        index = ProductIndex()
        for product in self._products:
            for row in (product.cells, *product.variations):
                index.add("id", row.get("ID"), product.item_id)
                index.add("sku", row.get("SKU"), product.item_id)
                index.add("name", row.get("Name"), product.item_id)
        return index

    def check_log(self) -> None:
        """Refuse files without products of orders. Orders need no user.

        Raises:
            InputError: a file has no products of orders.
        """
        for path in self.log_files:
            if kind_of(path) != "json":
                self._packed(path)

    def interactions(self) -> Iterator[tuple[RowLedger, pl.DataFrame]]:
        """Yield the line items of each file; cancelled, refunded and unpaid orders are set aside.

        Raises:
            InputError: a file has no products of orders.
        """
        for path in self.log_files:
            ledger = self.ledger(path)
            if kind_of(path) == "json":
                rows = (line for _, row in read_rows(path, ledger) for line in _line_items(row))
                schema = dict.fromkeys(_ORDER_COLUMNS, pl.String)
                lines = pl.DataFrame(
                    [[line.get(name) for name in schema] for line in rows], schema, orient="row"
                )
            else:
                packed = self._packed(path)
                columns = {**_ORDER_COLUMNS, **{name: (name,) for name in packed}}
                lines = _unpacked(pl.concat(read_strings(path, ledger, columns)), packed)
            if len(lines) != ledger.kept:
                ledger.note(
                    f"{ledger.kept:,} orders with {len(lines):,} line items, which are counted as the rows"
                )
                ledger.rows += len(lines) - ledger.kept
            guest = pl.col("customer").is_in(["0", "Guest"])
            lines = lines.with_columns(pl.when(~guest).then("customer").alias("customer"))
            lines, advice = without_lost_orders(whole_orders(lines), ledger, _LOST, _GOOD)
            self.advice += advice
            keys = ("variation", "product", "sku", "name")
            nothing = pl.all_horizontal(pl.col(key).is_null() for key in keys)
            lines = set_aside(lines, ledger, nothing, "the row has no product", "order")
            lines = lines.with_columns(pl.col("name").str.extract(r"^(.*) - .*$").alias("title"))
            lines = self._index.items_of(
                lines,
                [("product", "id"), ("variation", "id"), ("sku", "sku"), ("name", "name"), ("title", "name")],
            )
            yield ledger, as_log(lines.with_columns(pl.coalesce("item_id", "product")))
            refuse_empty(ledger)

    def _packed(self, path: Path) -> list[str]:
        """Return the columns that contain one product each, and refuse a file without products."""
        names = column_names(path)
        packed = [name for name in names if _LINE_ITEM.fullmatch(name)]
        wanted = [name for key in ("product", "sku", "name", "products") for name in _ORDER_COLUMNS[key]]
        if not packed and not set(wanted) & set(names):
            raise InputError(
                f"{path} has no column with the products of the orders, such as {', '.join(wanted[:5])}. Export the "
                f"orders with one row for each line item. The file has: {', '.join(names)}."
            )
        return packed


def _unpacked(orders: pl.DataFrame, packed: Sequence[str]) -> pl.DataFrame:
    """Return one row for each product of the orders that have several in one row."""
    if packed:
        cells = pl.concat_list(packed).list.drop_nulls().alias("packed")
        lines = orders.with_columns(cells).explode("packed", empty_as_null=True)
        return lines.with_columns(
            pl.col("packed").str.extract(rf"(?:^|\|)\s*{key}:([^|]*)").alias(name)
            for key, name in (("product_id", "product"), ("sku", "sku"), ("name", "name"))
        ).drop("packed", *packed)
    if orders["products"].null_count() == len(orders):
        return orders
    names = pl.col("products").str.replace_all(_FURTHER_PRODUCT, "\x1f${1}").str.split("\x1f")
    lines = orders.with_columns(names).explode("products", empty_as_null=True)
    named = pl.col("products").str.replace(_QUANTITY, "").str.strip_chars()
    return lines.with_columns(pl.coalesce("name", named).alias("name"))


def _line_items(order: Mapping[str, Any]) -> Iterator[dict[str, str | None]]:
    """Yield the line items of an order of the REST API; an order without line items gives one row without a product."""
    billing = order.get("billing")
    shared = {
        "order": order.get("number") or order.get("id"),
        "status": order.get("status"),
        "user_id": billing.get("email") if isinstance(billing, dict) else None,
        "customer": order.get("customer_id"),
        "timestamp": order.get("date_created_gmt") or order.get("date_created"),
    }
    items = order.get("line_items")
    rows = [item if isinstance(item, dict) else {} for item in items] if isinstance(items, list) else []
    for item in rows or [{}]:
        line = {**shared, "product": item.get("product_id"), "variation": item.get("variation_id")}
        line = {**line, "sku": item.get("sku"), "name": item.get("name")}
        yield {name: as_text(value) or None for name, value in line.items()}
