"""Data preparation (`rcml prepare`): converts raw items and a log, or ready-made edges, to items, relations and edges.

Each item is assigned to the training, validation or test split, and training reads only edges within a split. It
therefore never sees an item or a pair of the test split. Edges between a training item and a held-out item are written
to a file of their own, for evaluation. The report lists the skipped items with the reasons.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from PIL import Image, ImageOps

from model.artifact import PICTURES, file_digest, write_artifact
from model.console import progress, say
from model.errors import InputError, PictureError
from model.records import INTRA_RELATION, Item, Relation, Split
from model.relation_file import save_relations

from .files.row_ledger import RowLedger
from .item_input import compose_text, encode_picture
from .item_table import ITEM_COLUMNS, read_item_table
from .log_table import read_log_table
from .pictures.images import local_refusals, shrunk
from .pictures.picture_cells import host_of, is_address, local_path, pictures_of
from .prepare_config import PrepareConfig
from .prepared_data import EDGES_ACROSS_FILE, EDGES_FILE, LOG_FILE
from .ready_edges import read_edges, read_relation_texts
from .relations.clusters import InteractionLog, describe_clusters, user_clusters
from .relations.edges import related_pairs
from .relations.interaction_log import LogFilters, read_user_items
from .report.preparation_markdown import preparation_markdown
from .report.preparation_report import count_file, count_prepared, describe_columns
from .sources.open_source import open_source
from .sources.source import Source

MAX_SOURCE_PIXELS = 64_000_000
"""Maximum number of pixels of a picture. Larger pictures are skipped, because decoding them takes hundreds of MB."""

MIN_PICTURED_ITEMS = 3
"""Minimum number of items with a picture: one for each split."""

EDGE_SCHEMA = {
    "item_a": pl.String,
    "item_b": pl.String,
    "relation_id": pl.String,
    "support": pl.Int64,
    "npmi": pl.Float64,
    "split": pl.String,
}

LOG_SCHEMA = {"user": pl.Int64, "item": pl.Int64, "relation_id": pl.String}


@dataclass(frozen=True)
class Graph:
    """Relations with their edges, and counts for the report.

    `edges` (columns of `EDGE_SCHEMA`) connect items of the same split, and `edges_across` a training item with a
    held-out item. `counts` contains the numbers of all interactions, of kept interactions, users and items, of unusable
    edges, and of edges across splits. `users` contains the number of users of each relation. `log` contains the kept
    interactions; it is None for ready-made edges. `advice` says in sentences what could be mended.
    """

    relations: list[Relation]
    edges: pl.DataFrame
    edges_across: pl.DataFrame
    counts: dict[str, int]
    users: dict[str, int]
    log: pl.DataFrame | None = None
    advice: tuple[str, ...] = ()


def _sorted_edges(
    pairs: pl.DataFrame, items: list[Item], splits: list[Split]
) -> tuple[pl.DataFrame, pl.DataFrame, Counter[str]]:
    """Divide pairs into edges within the splits and edges across them, and count what is dropped.

    `pairs` have a and b (rows of `items`), relation_id, support and npmi. Edges of text-only items are dropped, and so
    are edges between a validation item and a test item.
    """
    nodes = pl.DataFrame(
        {
            "item": [item.item_id for item in items],
            "pictured": [bool(item.picture) for item in items],
            "split": [split.value for split in splits],
        }
    )
    a, b = nodes[pairs["a"]], nodes[pairs["b"]]
    edges = pairs.select(
        a["item"].alias("first"), b["item"].alias("second"), "relation_id", "support", "npmi",
        (a["pictured"] & b["pictured"]).alias("pictured"), a["split"].alias("split"), b["split"].alias("other"),
    )  # fmt: skip
    counts = Counter[str]()
    pictured = edges.filter("pictured")
    if len(pictured) < len(edges):
        counts["edges_of_text_only_items"] = len(edges) - len(pictured)
    pictured = pictured.with_columns(
        item_a=pl.min_horizontal("first", "second"), item_b=pl.max_horizontal("first", "second")
    )
    same = pl.col("split") == pl.col("other")
    within, across = pictured.filter(same), pictured.filter(~same)
    if len(across):
        counts["edges_across_splits"] = len(across)
    train = Split.TRAIN.value
    across = across.filter((pl.col("split") == train) | (pl.col("other") == train)).with_columns(
        split=pl.when(pl.col("split") == train).then("other").otherwise("split")
    )
    return within.select(*EDGE_SCHEMA), across.select(*EDGE_SCHEMA), counts


def prepare(config: PrepareConfig) -> str:
    """Prepare the data and return a one-line summary.

    Raises:
        InputError: the raw files cannot be used.
        ArtifactError: `config.out` contains something other than an artifact, or another run is writing it.
    """
    source = open_source(config)
    table = read_item_table(source.items(), config.types, source.untyped)
    sources = _digests(config)
    with write_artifact(config.out, "prepared", config, sources) as draft:
        (draft.path / PICTURES).mkdir()
        items, set_aside = _keep_items(table.frame, source, config, draft.path)
        splits = _split(items, config)
        unread: Counter[str] = Counter()
        if config.edges is None:
            graph = _from_log(items, splits, read_log_table(source.interactions(), unread), config)
        else:
            graph = _from_edges(items, splits, config)
        relations = [
            relation if relation.intra else replace(relation, domain=config.domain)
            for relation in graph.relations
        ]
        edges, edges_across = graph.edges, graph.edges_across
        _write_tables(draft.path, items, splits, relations, graph)
        report = count_prepared(
            items, splits, relations, edges, len(edges_across), graph.counts, graph.users, set_aside
        ).model_copy(
            update={
                "files": tuple(count_file(ledger) for ledger in source.ledgers),
                "columns": describe_columns(table),
                "advice": graph.advice,
                "changes": {**table.changes, **{f"unread {name}": count for name, count in unread.items()}},
            }
        )
        text = json.dumps(report.model_dump(mode="json"), indent=2) + "\n"
        (draft.path / "report.json").write_text(text, encoding="utf-8")
        (draft.path / "report.md").write_text(preparation_markdown(report), encoding="utf-8")
        draft.counts.update(
            items=len(items), relations=len(relations), edges=len(edges), edges_across=len(edges_across)
        )
    for sentence in graph.advice:
        say(f"Warning: {sentence}")
    return (
        f"Prepared {len(items)} items, {len(relations)} relations and {len(edges)} edges in {config.out} "
        f"({_skipped(set_aside, source.ledgers)}; see report.md)"
    )


def _skipped(set_aside: Mapping[str, str], ledgers: Sequence[RowLedger]) -> str:
    """Say how many items and rows were set aside, and name the first row of each file."""
    rows = [ledger.summary() for ledger in ledgers if ledger.skipped]
    return "; ".join([f"{len(set_aside)} items skipped", *rows])


def _digests(config: PrepareConfig) -> dict[str, str]:
    """Return the digests of the raw files, so that the manifest says what the data was made from."""
    names = ("items", "interactions", "edges", "relation_texts")
    paths = {name: getattr(config, name) for name in names}
    return {name: file_digest(path) for name, path in paths.items() if path is not None and path.is_file()}


def _keep_items(
    table: pl.DataFrame, source: Source, config: PrepareConfig, folder: Path
) -> tuple[list[Item], dict[str, str]]:
    """Return the usable items in their order, and the reason for each skipped item."""
    root = config.images or config.folder or (config.items.parent if config.items else Path())
    rows = list(table.iter_rows(named=True))
    attributes = [name for name in table.columns if name not in ITEM_COLUMNS]

    def keep(position: int) -> Item | str:
        row = rows[position]
        title, description = row["title"].strip(), row["description"].strip()
        text = compose_text(config.text_fields, title, row["categories"], description)
        if not text:
            return f"no text in {', '.join(config.text_fields)}"
        picture = ""
        pictures = pictures_of(row["images"], root)
        if pictures:
            kept = _first_picture(pictures, root, folder / PICTURES, f"{position:07d}", config.picture_size)
            if isinstance(kept, str):
                return kept
            picture = f"{PICTURES}/{kept.name}"
        elif not config.text_only:
            return "no picture"
        return Item(
            item_id=row["item_id"],
            title=title,
            description=description,
            categories=tuple(row["categories"]),
            text=text,
            picture=picture,
            attributes={name: row[name] for name in attributes if row[name] is not None},
        )

    with ThreadPoolExecutor() as pool:
        results = list(progress(pool.map(keep, range(len(rows))), "reading pictures", len(rows)))
    items = [result for result in results if isinstance(result, Item)]
    set_aside = {
        row["item_id"]: result for row, result in zip(rows, results, strict=True) if isinstance(result, str)
    }
    if (pictured := sum(bool(item.picture) for item in items)) < MIN_PICTURED_ITEMS:
        unusable = {**set_aside, **{item.item_id: "no picture" for item in items if not item.picture}}
        reasons = "; ".join(f"{item_id}: {reason}" for item_id, reason in list(unusable.items())[:3])
        raise InputError(
            f"{source.item_files[0]} has {pictured} usable items with a picture; at least {MIN_PICTURED_ITEMS} are "
            f"needed. Add items or correct the unusable ones. {reasons}".rstrip()
        )
    return items, set_aside


def _first_picture(pictures: Sequence[str], root: Path, folder: Path, name: str, size: int) -> Path | str:
    """Store the first usable one of `pictures` as `name` in `folder`; return its file, or why none is usable."""
    reasons = []
    for picture in pictures:
        if is_address(picture):
            reasons.append(
                f"the picture is an address ({host_of(picture)}), which is not fetched; give files"
            )
            continue
        try:
            suffix = scale_picture(local_path(picture, root), folder / name, size)
        except InputError as error:
            reasons.append(str(error))
            continue
        return folder / f"{name}{suffix}"
    return "; ".join(dict.fromkeys(reasons))


def scale_picture(source: Path, target: Path, size: int) -> str:
    """Write a scaled copy of `source` to `target` plus a suffix, and return the suffix.

    The copy is upright, in RGB, and has at most `size` pixels per side.

    Raises:
        PictureError: the file does not exist, is damaged or not a picture, or has more than `MAX_SOURCE_PIXELS`.
    """
    with local_refusals(source), Image.open(source) as picture:
        if picture.width * picture.height > MAX_SOURCE_PIXELS:
            raise PictureError(
                f"picture {source.name} is too large ({picture.width} x {picture.height} pixels)"
            )
        lossless = picture.format == "PNG"
        picture.draft("RGB", (size, size))
        upright = shrunk(ImageOps.exif_transpose(picture), size)
    content, suffix = encode_picture(upright, lossless)
    target.with_suffix(suffix).write_bytes(content)
    return suffix


def _split(items: list[Item], config: PrepareConfig) -> list[Split]:
    """Assign each item to a split.

    `test_share` and `validation_share` are shares of the items with a picture. An item without a picture belongs to no
    pair, so its split (train) has no effect.
    """
    pictured = np.asarray([row for row, item in enumerate(items) if item.picture])
    order = np.random.default_rng(config.seed).permutation(pictured)
    test = round(len(pictured) * config.test_share)
    validation = round(len(pictured) * config.validation_share)
    splits = [Split.TRAIN] * len(items)
    for row in order[:test]:
        splits[row] = Split.TEST
    for row in order[test : test + validation]:
        splits[row] = Split.VALIDATION
    return splits


def _from_log(
    items: list[Item], splits: list[Split], batches: Iterable[pl.DataFrame], config: PrepareConfig
) -> Graph:
    """Cluster the users of the log; return one relation for each cluster, with its related pairs."""
    log, counts, advice = _read_log(items, batches, config)
    membership = user_clusters(log, config.clusters, config.seed)
    found = int(membership.max()) + 1
    if found < config.clusters:
        advice += (
            f"{config.clusters} clusters were asked for, but the users differ in only {found} ways by the categories "
            f"of their items, so there are {found}. Add categories to the items, or choose --clusters {max(found, 2)}.",
        )
    described = describe_clusters(log, membership, config.behaviour)
    pairs = []
    for cluster, (name, _) in enumerate(progress(described, "finding pairs", len(described))):
        related = related_pairs(
            log.taken[membership == cluster], config.min_support, config.min_npmi, config.partners
        )
        columns = {"a": related.a, "b": related.b, "support": related.support, "npmi": related.npmi}
        pairs.append(pl.DataFrame(columns).with_columns(relation_id=pl.lit(name)))
    within, across, dropped = _sorted_edges(pl.concat(pairs), items, splits)
    user, item = log.taken.nonzero()
    names = pl.Series([name for name, _ in described], dtype=pl.String)
    kept = pl.DataFrame({"user": user, "item": item, "relation_id": names[membership[user]]}, LOG_SCHEMA)
    return Graph(
        relations=[INTRA_RELATION, *(Relation(name, text) for name, text in described)],
        edges=within,
        edges_across=across,
        counts={**counts, "edges_across_splits": 0, **dropped},
        users={name: int(users) for (name, _), users in zip(described, np.bincount(membership), strict=True)},
        log=kept.sort("user", "item"),
        advice=advice,
    )


def _read_log(
    items: list[Item], batches: Iterable[pl.DataFrame], config: PrepareConfig
) -> tuple[InteractionLog, dict[str, int], tuple[str, ...]]:
    """Read the log as a matrix, and the categories of the items; return them with counts and advice."""
    filters = LogFilters(
        config.min_rating,
        config.min_user_items,
        config.max_user_items,
        config.min_item_users,
        config.repair_ids,
    )
    log = read_user_items(batches, [item.item_id for item in items], filters)
    users = len(log.users)
    if users < config.clusters:
        path = config.interactions or config.folder
        steps = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in log.counts.items())
        unknown = log.counts["of_unknown_items"] > log.counts["without_repeats"]
        remedy = (
            "The IDs of the items (item_id) in the log and in the items differ; make them equal."
            if unknown
            else "Relax the filters or choose fewer clusters."
        )
        raise InputError(
            f"{path} has {users} users left after the filters (min_rating {config.min_rating}, "
            f"min_user_items {config.min_user_items}, min_item_users {config.min_item_users}), but needs at least "
            f"one for each of the {config.clusters} clusters. {' '.join([*log.advice, remedy])} Rows: {steps}."
        )
    names = tuple(sorted({name for item in items for name in item.categories}))
    if not names:
        raise InputError(
            f"{config.items or config.folder}: no item has categories, but the descriptions of relations are derived "
            "from them. Add categories to the items."
        )
    return InteractionLog(log.taken, *_category_shares(items, names)), log.counts, log.advice


def _category_shares(items: list[Item], names: tuple[str, ...]) -> tuple[sp.csr_array, tuple[str, ...]]:
    """Return the share of each category in each item, and the names of the categories.

    If some items have no category, one more category marks them, so that their users also have a distribution.
    """
    column = {name: position for position, name in enumerate(names)}
    sizes = np.array([len(item.categories) for item in items])
    rows = np.repeat(np.arange(len(items)), np.maximum(sizes, 1))
    columns = [column[name] for item in items for name in item.categories or ()]
    shares = sp.csr_array(
        (
            np.repeat(1 / np.maximum(sizes, 1), np.maximum(sizes, 1)),
            (rows, _with_gaps(columns, sizes, len(names))),
        ),
        shape=(len(items), len(names) + 1),
    )
    if (sizes > 0).all():
        return shares[:, :-1], names
    return shares, (*names, "other things")


def _with_gaps(columns: list[int], sizes: np.ndarray, gap: int) -> np.ndarray:
    """Insert `gap` at each item without categories."""
    filled = np.full(int(np.maximum(sizes, 1).sum()), gap)
    filled[np.repeat(sizes > 0, np.maximum(sizes, 1))] = columns
    return filled


def _from_edges(items: list[Item], splits: list[Split], config: PrepareConfig) -> Graph:
    """Return the ready-made edges, each once, and their relations."""
    assert config.edges is not None
    assert config.relation_texts is not None
    texts = read_relation_texts(config.relation_texts)
    if INTRA_RELATION.relation_id in texts:
        raise InputError(
            f"{config.relation_texts}: the relation ID {INTRA_RELATION.relation_id!r} is reserved for the relation of "
            "an item with itself. Choose another ID."
        )
    given = read_edges(config.edges)
    unknown = given.filter(~pl.col("relation").is_in(list(texts)))
    if len(unknown):
        raise InputError(
            f"{config.edges}: relation {unknown['relation'][0]!r} has no description in {config.relation_texts}. "
            "Add a row for it."
        )
    rows = pl.DataFrame({"item": [item.item_id for item in items], "row": np.arange(len(items))})
    edges = given.select(
        first=pl.min_horizontal("item_a", "item_b"),
        second=pl.max_horizontal("item_a", "item_b"),
        relation_id="relation",
    ).unique(maintain_order=True)
    counts = Counter[str]()
    different = edges.filter(pl.col("first") != pl.col("second"))
    if len(different) < len(edges):
        counts["self_edges"] = len(edges) - len(different)
    pairs = different.join(
        rows.rename({"item": "first", "row": "a"}), on="first", how="left", maintain_order="left"
    )
    pairs = pairs.join(
        rows.rename({"item": "second", "row": "b"}), on="second", how="left", maintain_order="left"
    )
    known = pairs.drop_nulls(["a", "b"])
    if len(known) < len(pairs):
        counts["edges_of_unknown_items"] = len(pairs) - len(known)
    known = known.with_columns(support=pl.lit(1, pl.Int64), npmi=pl.lit(1.0))
    within, across, dropped = _sorted_edges(known, items, splits)
    relations = [INTRA_RELATION, *(Relation(name, text) for name, text in texts.items())]
    return Graph(relations, within, across, dict(counts + dropped), users={})


def _write_tables(
    folder: Path, items: list[Item], splits: list[Split], relations: list[Relation], graph: Graph
) -> None:
    rows = [
        {**asdict(item), "attributes": json.dumps(item.attributes, ensure_ascii=False), "split": split.value}
        for item, split in zip(items, splits, strict=True)
    ]
    pl.DataFrame(rows).write_parquet(folder / "items.parquet")
    for name, edges in ((EDGES_FILE, graph.edges), (EDGES_ACROSS_FILE, graph.edges_across)):
        edges.write_parquet(folder / name)
    if graph.log is not None:
        graph.log.write_parquet(folder / LOG_FILE)
    save_relations(folder, relations)
