"""Interaction log as a user x item matrix, after filters that count everything they drop.

Rows become numbers batch by batch: 16 bytes for a user, an item and a time, whatever the length of the IDs. A log of
100 million rows therefore needs 1.6 GB, and no step loops over rows or users in Python.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import scipy.sparse as sp
from jaxtyping import Float, Int
from numpy import ndarray

MAX_UNKNOWN_IDS = 200_000
"""Maximum number of different unknown IDs that are kept for advice; further ones are only counted."""


INVISIBLE = "[\u00ad\u200b-\u200f\u2060\ufeff]"
"""Characters without width, which get into IDs by copying them from pages and files."""


@dataclass(frozen=True)
class LogFilters:
    """Which interactions are kept (the options of `rcml prepare` of the same names)."""

    min_rating: float | None = None
    min_user_items: int = 5
    max_user_items: int = 500
    min_item_users: int = 5
    repair_ids: bool = False


@dataclass(frozen=True)
class UserItems:
    """Filtered log. `taken[u, i]` is 1 if user u interacted with item i, otherwise 0; `users` are sorted.

    `counts` contains the number of rows after each step, in the order of the steps, then `kept_users` and `kept_items`.
    `advice` says in sentences what was dropped for a reason that can be mended.
    """

    taken: sp.csr_array
    users: pl.Series
    counts: dict[str, int]
    advice: tuple[str, ...]


@dataclass
class UnknownItems:
    """IDs that name no item, and which repair would make them join.

    `known` has the columns item_id and row. `what` names that which has the IDs, for the advice. The IDs of items that
    were `skipped` are counted apart, because they are right.
    """

    known: pl.DataFrame
    repair: bool
    what: str = "interactions"
    skipped: pl.Series = field(default_factory=lambda: pl.Series("skipped", [], dtype=pl.String))
    rows: int = 0
    of_skipped: int = 0
    first_skipped: str = ""
    repaired: int = 0
    first: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    _keys: pl.DataFrame | None = None

    def resolve(self, ids: pl.Series) -> pl.Series:
        """Return the rows of the items that `ids` mean, if they are to be repaired; otherwise null. Count both."""
        gone = ids.is_in(self.skipped.implode())
        if gone.any():
            self.of_skipped += int(gone.sum())
            self.first_skipped = self.first_skipped or str(ids.filter(gone)[0])
            rest = self._resolve(ids.filter(~gone))
            return (
                pl.Series([None], dtype=pl.Int32)
                .new_from_index(0, len(ids))
                .scatter((~gone).arg_true(), rest)
            )
        return self._resolve(ids)

    def _resolve(self, ids: pl.Series) -> pl.Series:
        if not len(ids):
            return pl.Series([], dtype=pl.Int32)
        if self._keys is None:
            self._keys = _unique_keys(self.known)
        different = pl.DataFrame({"given": ids}).group_by("given", maintain_order=True).agg(count=pl.len())
        pairs = (
            different.head(MAX_UNKNOWN_IDS)
            .with_columns(key=_key(pl.col("given")))
            .join(self._keys, on="key", how="inner", maintain_order="left")
            .with_columns(reason=_difference(pl.col("given"), pl.col("item_id")))
        )
        for reason, count in (
            pairs.group_by("reason", maintain_order=True).agg(pl.col("count").sum()).iter_rows()
        ):
            self.reasons[reason] += count
            given, item_id = pairs.filter(pl.col("reason") == reason).select("given", "item_id").row(0)
            self.examples.setdefault(reason, (given, item_id))
        if not self.repair:
            self.first = self.first or str(ids[0])
            self.rows += len(ids)
            return pl.Series([None] * len(ids), dtype=pl.Int32)
        mended = (
            pl.DataFrame({"given": ids}).join(
                pairs.select("given", "row"), on="given", how="left", maintain_order="left"
            )
        )["row"]
        self.repaired += mended.count()
        self.rows += mended.null_count()
        if mended.null_count():
            self.first = self.first or str(ids.filter(mended.is_null())[0])
        return mended

    def advice(self) -> list[str]:
        """Say how many interactions name no item or a skipped one, and what would repair their IDs."""
        told = []
        if self.of_skipped:
            told.append(
                f"{self._told(self.of_skipped, 'a skipped item', 'skipped items')}, such as {self.first_skipped!r}; "
                "the report has the reasons."
            )
        return told + self._join_advice()

    def _join_advice(self) -> list[str]:
        if self.repaired:
            changes = ", ".join(
                f"{count:,} differed in {reason} ({_shown(*self.examples[reason])})"
                for reason, count in self.reasons.most_common()
            )
            return [f"{self.repaired:,} {self.what} were joined by repaired IDs: {changes}.", *self._rest()]
        if not self.reasons:
            return self._rest()
        changes = "; ".join(
            f"{count:,} differ only in {reason} ({_shown(*self.examples[reason])})"
            for reason, count in self.reasons.most_common()
        )
        return [
            f"{self._told(self.rows)}, such as {self.first!r}. Of these, {changes}. --repair-ids joins them."
        ]

    def _rest(self) -> list[str]:
        return [f"{self._told(self.rows)}, such as {self.first!r}."] if self.rows else []

    def _told(self, count: int, one: str = "no item", many: str = "no item") -> str:
        return f"1 {self.what[:-1]} names {one}" if count == 1 else f"{count:,} {self.what} name {many}"


def read_user_items(
    batches: Iterable[pl.DataFrame],
    item_ids: Sequence[str],
    filters: LogFilters,
    skipped: Collection[str] = (),
) -> UserItems:
    """Read a log as a matrix and apply the filters.

    `batches` have user_id, item_id (String), rating (Float64, null if not rated) and timestamp (Float64 or null). Each
    pair of a user and an item counts once, with its latest time. The last two filters are repeated until they drop
    nothing more, because each may undo the other. `skipped` has the IDs of known items that were not kept.
    """
    known = pl.DataFrame({"item_id": item_ids, "row": np.arange(len(item_ids), dtype=np.int32)})
    names = pl.Categories.random()
    # polars forgets the categories as soon as no column refers to them.
    held = pl.Series("users", [], dtype=pl.Categorical(names))
    unknown = UnknownItems(
        known, filters.repair_ids, skipped=pl.Series("skipped", list(skipped), dtype=pl.String)
    )
    counts = Counter[str](interactions=0)
    users: list[ndarray] = []
    items: list[ndarray] = []
    times: list[ndarray] = []
    for batch in batches:
        counts["interactions"] += len(batch)
        if filters.min_rating is not None:
            counts["not_rated"] += batch["rating"].null_count()
            rated = batch.filter(pl.col("rating") >= filters.min_rating)
            counts["low_rated"] += len(batch) - batch["rating"].null_count() - len(rated)
            batch = rated
        batch = batch.join(known, on="item_id", how="left", maintain_order="left")
        if batch["row"].null_count():
            lost = batch["row"].is_null()
            mended = unknown.resolve(batch["item_id"].filter(lost))
            batch = pl.concat([batch.filter(~lost), batch.filter(lost).with_columns(row=mended)]).drop_nulls(
                "row"
            )
        users.append(batch["user_id"].cast(held.dtype).to_physical().to_numpy())
        items.append(batch["row"].to_numpy())
        times.append(batch["timestamp"].fill_null(-np.inf).to_numpy())
    counts["of_unknown_items"] = unknown.rows + unknown.of_skipped
    user, item = _latest_pairs(
        _joined(users, np.uint32), _joined(items, np.int32), _joined(times, np.float64)
    )
    counts["without_repeats"] = len(user)
    user, item = _latest_items(user, item, filters.max_user_items)
    counts["of_latest_items"] = len(user)
    user, item = _core(user, item, filters.min_user_items, filters.min_item_users)
    codes, user = np.unique(user, return_inverse=True)
    kept = names.to_series()[codes] if len(codes) else pl.Series("users", [], dtype=pl.String)
    order = kept.arg_sort().to_numpy()
    place = np.empty(len(codes), dtype=np.int64)
    place[order] = np.arange(len(codes))
    taken = sp.csr_array(
        (np.ones(len(user)), (place[user], item.astype(np.int64))), shape=(len(codes), len(item_ids))
    )
    counts["kept_interactions"] = len(user)
    counts["kept_users"] = len(codes)
    counts["kept_items"] = len(np.unique(item))
    return UserItems(taken, kept.gather(order), dict(counts), tuple(unknown.advice()))


def first_interactions(
    batches: Iterable[pl.DataFrame], item_ids: Sequence[str], repair_ids: bool = False
) -> dict[str, float]:
    """Return the time of the first interaction of each item, in seconds since 1970; items without a time are absent.

    `batches` are those of `read_user_items`. With `repair_ids`, the times of repairable IDs count for the item that
    they mean.
    """
    known = pl.DataFrame({"item_id": item_ids, "row": np.arange(len(item_ids), dtype=np.int32)})
    earliest = pl.DataFrame(schema={"item_id": pl.String, "timestamp": pl.Float64})
    for batch in batches:
        times = pl.concat([earliest, batch.select("item_id", "timestamp")]).drop_nulls()
        earliest = times.group_by("item_id").agg(pl.col("timestamp").min())
    found = earliest.join(known, on="item_id", how="inner").select("item_id", "timestamp")
    if repair_ids:
        lost = earliest.join(known, on="item_id", how="anti").select("timestamp", key=_key(pl.col("item_id")))
        mended = lost.join(_unique_keys(known), on="key", how="inner").select("item_id", "timestamp")
        found = pl.concat([found, mended]).group_by("item_id").agg(pl.col("timestamp").min())
    return dict(found.iter_rows())


def _joined(parts: list[ndarray], dtype: type) -> ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


def _latest_pairs(
    user: Int[ndarray, " rows"], item: Int[ndarray, " rows"], time: Float[ndarray, " rows"]
) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"]]:
    """Return each pair of a user and an item once, the latest first; rows without a time (-inf) come last."""
    if not (time == -np.inf).all():
        order = np.argsort(-time, kind="stable")
        user, item = user[order], item[order]
    _, first = np.unique(user.astype(np.int64) << 32 | item.astype(np.int64), return_index=True)
    first.sort()
    return user[first], item[first]


def _latest_items(
    user: Int[ndarray, " pairs"], item: Int[ndarray, " pairs"], most: int
) -> tuple[Int[ndarray, " kept"], Int[ndarray, " kept"]]:
    """Keep the first `most` pairs of each user."""
    if not len(user) or np.bincount(user).max() <= most:
        return user, item
    order = np.argsort(user, kind="stable")
    ordered = user[order]
    position = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept = np.sort(order[position < most])
    return user[kept], item[kept]


def _core(
    user: Int[ndarray, " pairs"], item: Int[ndarray, " pairs"], user_items: int, item_users: int
) -> tuple[Int[ndarray, " kept"], Int[ndarray, " kept"]]:
    """Drop rare items and users in turn until each item has `item_users` users and each user `user_items` items."""
    while len(user):
        enough = np.bincount(item)[item] >= item_users
        user, item = user[enough], item[enough]
        if not len(user):
            break
        of_active = np.bincount(user)[user] >= user_items
        user, item = user[of_active], item[of_active]
        if enough.all() and of_active.all():
            break
    return user, item


def _key(ids: pl.Expr) -> pl.Expr:
    """Return the form of an ID that ignores what programs change.

    Blanks at the ends, upper case, leading zeros, a final `.0`, characters without width, and composed or decomposed
    accents (NFC, NFD) make no difference.
    """
    return _visible(ids).str.to_lowercase().str.replace(r"^(\d+)\.0+$", "${1}").str.replace(r"^0+(.)", "${1}")


def _visible(ids: pl.Expr) -> pl.Expr:
    """Return IDs in NFC without characters that cannot be seen."""
    return ids.str.normalize("NFC").str.replace_all(INVISIBLE, "").str.strip_chars()


def _unique_keys(known: pl.DataFrame) -> pl.DataFrame:
    """Return the keys that belong to exactly one item."""
    keyed = known.with_columns(key=_key(pl.col("item_id")))
    return keyed.filter(~pl.col("key").is_duplicated())


def _difference(given: pl.Expr, item_id: pl.Expr) -> pl.Expr:
    """Say in which way two IDs with the same key differ."""
    bare, bare_id = given.str.strip_chars(), item_id.str.strip_chars()
    given, item_id = _visible(given), _visible(item_id)
    return (
        pl.when(bare == bare_id)
        .then(pl.lit("blanks at the ends"))
        .when(given == item_id)
        .then(pl.lit("characters that cannot be seen"))
        .when(given.str.to_lowercase() == item_id.str.to_lowercase())
        .then(pl.lit("upper and lower case"))
        .when(given.str.replace(r"\.0+$", "") == item_id.str.replace(r"\.0+$", ""))
        .then(pl.lit("'.0' at the end"))
        .when(given.str.replace(r"^0+", "") == item_id.str.replace(r"^0+", ""))
        .then(pl.lit("leading zeros"))
        .otherwise(pl.lit("several ways"))
    )


def _shown(given: str, item_id: str) -> str:
    return f"{given!r} for {item_id!r}"
