"""Usual names of the columns of items and logs, and the column that an error suggests for one that is missing."""

import re
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LOG_PREFIX = "log."
"""Start of a name in --columns that maps a column of the log alone."""

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "user_id": (
        "user_id", "userid", "user", "uid", "reviewer_id", "customer_id", "session_id", "customer_email", "email",
        "customer", "buyer",
    ),
    "item_id": (
        "item_id", "itemid", "iid", "asin", "product_id", "movie_id", "book_id", "business_id", "artist_id", "track_id",
        "song_id", "recipe_id", "news_id", "parent_asin", "article_id", "id", "item_sku", "product_sku", "sku",
        "article", "product",
    ),
    "rating": ("rating", "ratings", "stars", "score", "overall"),
    "timestamp": (
        "timestamp", "time", "date", "unix_review_time", "created_at", "order_date", "purchase_date", "ordered_at",
    ),
    "title": ("title", "movie_title", "item_title", "book_title", "item_name", "product_name", "app_name", "name"),
    "description": ("description", "desc", "abstract", "summary", "overview", "text"),
    "categories": (
        "categories", "category", "genres", "genre", "class", "item_category", "category_name", "tags", "type",
    ),
    "images": ("images", "image", "image_url", "imurl", "picture", "poster", "base_image"),
}  # fmt: skip
"""Usual names of each column, in lower case, the most usual first."""


def columns_remedy(name: str, present: Iterable[str], stated: str | None = None) -> str:
    """Say how to name the column of `name`, and which columns the file has. See `columns_option`."""
    names = list(present)
    return f"Name it, such as {columns_option(name, names, stated)}. The file has: {', '.join(names)}."


def columns_option(name: str, present: Sequence[str], stated: str | None = None) -> str:
    """Return the option that names the column of `name`, quoted for a shell. `name` may begin with `log.`.

    The option has the column that is meant most likely: the one most like `stated`, the name that was given, otherwise
    one with a usual name, otherwise, if no name was given, the only one without a usual name of another
    column. If there is none, the option says NAME.
    """
    own = "image" if name == "images" else name
    likely = _likely(name.removeprefix(LOG_PREFIX), present, stated) or "NAME"
    return f"--columns {shlex.quote(f'{own}={likely}')}"


def _likely(name: str, present: Sequence[str], stated: str | None) -> str | None:
    """Return the column that is meant most likely; None if none is likely."""
    by_key = {_key(column): column for column in reversed(present)}
    if stated is not None and (like := get_close_matches(_key(stated), by_key, n=1, cutoff=0.75)):
        return by_key[like[0]]
    usual = next((by_key[key] for key in USUAL_NAMES[name] if key in by_key), None)
    known = {key for other in USUAL_NAMES if other != name for key in USUAL_NAMES[other]}
    rest = [column for column in present if _key(column) not in known]
    return usual or (rest[0] if stated is None and len(rest) == 1 else None)


def _key(column: str) -> str:
    """Return the name of a column in lower case, with its words joined by underscores."""
    return re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_")
