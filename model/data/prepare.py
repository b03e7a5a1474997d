"""Data preparation (`rcml prepare`): converts raw items and a log, or ready-made edges, to items, relations and edges.

Each item is assigned to the training, validation or test split, and training reads only edges within a split. It
therefore never sees an item or a pair of the test split. Edges between a training item and a held-out item are written
to a file of their own, for evaluation. The report lists the skipped items with the reasons.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from model.artifact import PICTURES, write_artifact
from model.console import say
from model.errors import InputError
from model.item_limits import refusal
from model.plain_file import file_digest
from model.records import Item, Relation, Split
from model.relation_file import save_relations

from .files.row_ledger import RowLedger
from .files.table_reader import table_files
from .item_input import compose_text
from .item_table import ITEM_COLUMNS, ItemTable, read_item_table
from .log_table import read_log_table, unread_advice
from .near_duplicates import MAX_SHARED_PICTURE, duplicate_groups
from .pictures.downloads import DownloadLimits
from .pictures.item_pictures import Fetching, resolve_pictures
from .pictures.picture_cells import is_address, pictures_of
from .prepare_config import PrepareConfig
from .prepared_data import EDGES_ACROSS_FILE, EDGES_FILE, LOG_FILE
from .ready_edges import read_described_edges, read_relation_texts
from .relation_graph import Graph, graph_of_edges, graph_of_log
from .relations.interaction_log import first_interactions
from .report.preparation_counts import count_file, count_prepared, describe_columns
from .report.preparation_files import write_report
from .report.preparation_verdict import judge
from .sources.open_source import open_source
from .sources.source import Source
from .splits import split_by_hash, split_by_time

MIN_PICTURED_ITEMS = 3
"""Minimum number of items with a picture: one for each split.

Data without any picture can be prepared, to judge a log before its pictures are there, but not trained on.
"""

MAX_REASONS = 5
"""Maximum number of reasons why pictures were not downloaded that are told."""

MAX_GROUP_SHARE = 0.05
"""Share of the items from which a group of near-duplicates is reported, because it shifts the shares of the splits."""


def prepare(config: PrepareConfig) -> str:
    """Prepare the data and return a one-line summary.

    Raises:
        InputError: the raw files cannot be used.
        ArtifactError: writing `config.out` would lose something (`refuse_loss`), or another run is writing it.
    """
    source = open_source(config)
    table = read_item_table(source.items(), config.types, source.untyped, source.types)
    sources = _digests(config, source)
    # What can be refused at once is read before the pictures, which may take hours.
    source.check_log()
    given, texts = _given_relations(config)
    texts_taken = (config.relation_texts,) if config.relation_texts else ()
    with write_artifact(config.out, "prepared", config, sources, texts_taken) as draft:
        (draft.path / PICTURES).mkdir()
        items, set_aside, advice = _keep_items(table, source, config, draft.path)
        splits, cautions = _split(items, config, draft.path)
        unread: Counter[str] = Counter()
        if given is None:
            log = read_log_table(source.interactions(), unread)
            graph = graph_of_log(items, splits, log, texts, config, source.skipped_items | set(set_aside))
        else:
            graph = graph_of_edges(items, splits, given, texts or {}, config.repair_ids)
        graph = replace(
            graph, advice=(*advice, *source.advice, *graph.advice, *unread_advice(unread), *cautions)
        )
        relations = [
            relation if relation.intra else replace(relation, domain=config.domain)
            for relation in graph.relations
        ]
        edges, edges_across = graph.edges, graph.edges_across
        _write_tables(draft.path, items, splits, relations, graph)
        report = count_prepared(items, splits, graph, set_aside, config).model_copy(
            update={
                "files": tuple(count_file(ledger) for ledger in source.ledgers),
                "columns": describe_columns(table),
                "changes": {
                    **table.changes,
                    **source.changes,
                    **{f"unread {name}": count for name, count in unread.items()},
                },
            }
        )
        write_report(report.model_copy(update={"verdict": judge(report, config)}), draft.path)
        draft.counts.update(
            items=len(items), relations=len(relations), edges=len(edges), edges_across=len(edges_across)
        )
    for sentence in graph.advice:
        say(f"Note: {sentence}")
    return (
        f"Prepared {len(items):,} items, {len(relations) - 1} relations and {len(edges):,} edges in {config.out} "
        f"({_skipped(set_aside, source.ledgers)}; see {config.out / 'report.html'})"
    )


def _given_relations(config: PrepareConfig) -> tuple[pl.DataFrame | None, dict[str, str] | None]:
    """Read the ready-made edges and the descriptions of relations; None for each that is not given."""
    if config.relation_texts is None:
        return None, None
    if config.edges is None:
        return None, read_relation_texts(config.relation_texts)
    return read_described_edges(config.edges, config.relation_texts)


def _skipped(set_aside: Mapping[str, str], ledgers: Sequence[RowLedger]) -> str:
    """Say how many items and rows were set aside, and name the first row of each file."""
    rows = [ledger.summary() for ledger in ledgers if ledger.skipped]
    return "; ".join([f"{len(set_aside)} items skipped", *rows])


def _digests(config: PrepareConfig, source: Source) -> dict[str, str]:
    """Return the digests of the raw files, so that the manifest says what the data was made from.

    Several files of one kind have their names after it, as in `items meta_Books.jsonl`.
    """
    kinds = {
        "items": source.item_files,
        "interactions": source.log_files,
        "edges": table_files(config.edges) if config.edges else [],
        "relation_texts": table_files(config.relation_texts) if config.relation_texts else [],
    }
    return {
        kind if len(paths) == 1 else f"{kind} {path.name}": file_digest(path)
        for kind, paths in kinds.items()
        for path in paths
    }


def _keep_items(
    table: ItemTable, source: Source, config: PrepareConfig, folder: Path
) -> tuple[list[Item], dict[str, str], tuple[str, ...]]:
    """Return the usable items in their order, the reason for each skipped item, and advice.

    An item whose pictures are addresses that were not downloaded is kept as a text-only item.
    """
    # A picture in a table is found beside the file that names it.
    stated = config.images or (None if config.source == "table" else source.pictures)
    roots = [stated or folder_of_file for folder_of_file in table.folders]
    rows = [
        {**row, "title": row["title"].strip(), "description": row["description"].strip()}
        for row in table.frame.iter_rows(named=True)
    ]
    texts = [
        compose_text(config.text_fields, row["title"], row["categories"], row["description"]) for row in rows
    ]
    # The picture of an item without text would be stored for nothing.
    cells = [row["images"] if text else () for row, text in zip(rows, texts, strict=True)]
    pictures = resolve_pictures(cells, roots, folder / PICTURES, config.picture_size, _fetching(config))
    items: list[Item] = []
    set_aside: dict[str, str] = {}
    not_downloaded: list[str] = []
    files_named = False
    for row, text, picture, root in zip(rows, texts, pictures, roots, strict=True):
        at_addresses = isinstance(picture, str) and all(map(is_address, pictures_of(row["images"], root)))
        files_named |= picture is not None and not at_addresses
        if at_addresses and config.text_only:
            not_downloaded.append(str(picture))
            picture = None
        item = _item(row, text, picture, config)
        if isinstance(item, str):
            set_aside[row["item_id"]] = item
        else:
            items.append(item)
    pictured = sum(bool(item.picture) for item in items)
    if pictured < MIN_PICTURED_ITEMS and (files_named or len(items) < MIN_PICTURED_ITEMS):
        unpictured = [item.item_id for item in items if not item.picture] if files_named else []
        unusable = {**set_aside, **dict.fromkeys(unpictured, "no picture")}
        reasons = "; ".join(f"{item_id}: {reason}" for item_id, reason in list(unusable.items())[:3])
        count, kind = (pictured, " with a picture") if files_named else (len(items), "")
        raise InputError(
            f"{source.item_files[0]} has {count} usable item{'s' * (count != 1)}{kind}; at least {MIN_PICTURED_ITEMS} "
            f"are needed. Add items or correct the unusable ones. {reasons}".rstrip()
        )
    advice: tuple[str, ...] = ()
    if not_downloaded:
        lack = (
            "1 item has only the address of a picture, not downloaded, so it is"
            if len(not_downloaded) == 1
            else f"{len(not_downloaded):,} items have only addresses of pictures, not downloaded, so they are"
        )
        frequent = Counter(not_downloaded).most_common(MAX_REASONS)
        told = "; ".join(
            f"{count:,}: {reason}" if len(frequent) > 1 else reason for reason, count in frequent
        )
        advice = (f"{lack} kept without a picture: {told}.",)
    return items, set_aside, advice


def _item(row: Mapping[str, Any], text: str, picture: Path | str | None, config: PrepareConfig) -> Item | str:
    """Return the item of a row, or why it is skipped. `picture` is its stored file, or why it has none."""
    if not text:
        return f"no text in {', '.join(config.text_fields)}"
    values = {name: row[name] for name in row if name not in ITEM_COLUMNS and row[name] is not None}
    invalid = refusal(row["item_id"], row["title"], row["description"], row["categories"], values)
    if invalid is not None:
        return invalid
    if isinstance(picture, str):
        return picture
    if picture is None and not config.text_only:
        return "no picture"
    return Item(
        item_id=row["item_id"],
        title=row["title"],
        description=row["description"],
        categories=tuple(row["categories"]),
        text=text,
        picture=f"{PICTURES}/{picture.name}" if picture else "",
        attributes=values,
    )


def _fetching(config: PrepareConfig) -> Fetching | None:
    """Return the options of downloads, or None without --fetch."""
    if not config.fetch:
        return None
    limits = DownloadLimits(config.fetch_connections, config.fetch_per_host)
    return Fetching(
        config.fetch_cache or config.out.with_name("fetched-pictures"), limits, config.fetch_hosts
    )


def _split(items: list[Item], config: PrepareConfig, folder: Path) -> tuple[list[Split], tuple[str, ...]]:
    """Assign each item to a split, and say what keeps the splits from having their shares.

    An item without a picture belongs to no pair, so its split has no effect. Near-duplicates are in one split.
    """
    ids = [item.item_id for item in items]
    groups = duplicate_groups(items, folder)
    if config.split == "time":
        unread: Counter[str] = Counter()
        log = read_log_table(open_source(config).interactions(), unread)
        seen = first_interactions(log, ids, config.repair_ids)
        try:
            splits = split_by_time(ids, groups, seen, config.validation_share, config.test_share)
        except InputError as error:
            raise InputError(" ".join([str(error), *unread_advice(unread)])) from None
    else:
        splits = split_by_hash(ids, groups, config.validation_share, config.test_share, config.seed)
    sizes = np.bincount(groups)
    largest = int(sizes.argmax())
    if sizes[largest] <= max(MAX_SHARED_PICTURE, MAX_GROUP_SHARE * len(items)):
        return splits, ()
    return splits, (
        f"{sizes[largest]:,} items count as near-duplicates of {ids[largest]!r} (title {items[largest].title!r}), so "
        f"they are all in the {splits[largest]} split, and the shares of the splits are less exact. Give these items "
        "distinct titles.",
    )


def _write_tables(
    folder: Path, items: list[Item], splits: list[Split], relations: list[Relation], graph: Graph
) -> None:
    columns = {
        name: [getattr(item, name) for item in items] for name in Item.__slots__ if name != "attributes"
    }
    table = {
        **columns,
        "attributes": [json.dumps(item.attributes, ensure_ascii=False) for item in items],
        "split": [split.value for split in splits],
    }
    pl.DataFrame(table).write_parquet(folder / "items.parquet")
    for name, edges in ((EDGES_FILE, graph.edges), (EDGES_ACROSS_FILE, graph.edges_across)):
        edges.write_parquet(folder / name)
    if graph.log is not None:
        graph.log.write_parquet(folder / LOG_FILE)
    save_relations(folder, relations)
