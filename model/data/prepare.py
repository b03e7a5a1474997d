"""Data preparation (`rcml prepare`): converts raw items and a log, or ready-made edges, to items, relations and edges.

Each item is assigned to the training, validation or test split, and training reads only edges within a split. It
therefore never sees an item or a pair of the test split. Edges between a training item and a held-out item are written
to a file of their own, for evaluation. The report lists the skipped items with the reasons.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageOps

from model.artifact import PICTURES, file_digest, write_artifact
from model.console import progress, say
from model.errors import InputError, PictureError
from model.item_limits import refusal
from model.records import Item, Relation, Split
from model.relation_file import save_relations

from .files.row_ledger import RowLedger
from .files.table_reader import table_files
from .item_input import compose_text, encode_picture
from .item_table import ITEM_COLUMNS, read_item_table
from .log_table import read_log_table
from .pictures.images import local_refusals, shrunk
from .pictures.picture_cells import host_of, is_address, local_path, pictures_of
from .prepare_config import PrepareConfig
from .prepared_data import EDGES_ACROSS_FILE, EDGES_FILE, LOG_FILE
from .relation_graph import Graph, graph_of_edges, graph_of_log
from .report.preparation_markdown import preparation_markdown
from .report.preparation_report import count_file, count_prepared, describe_columns
from .sources.open_source import open_source
from .sources.source import Source

MAX_SOURCE_PIXELS = 64_000_000
"""Maximum number of pixels of a picture. Larger pictures are skipped, because decoding them takes hundreds of MB."""

MIN_PICTURED_ITEMS = 3
"""Minimum number of items with a picture: one for each split.

Data without any picture can be prepared, to judge a log before its pictures are there, but not trained on.
"""


def prepare(config: PrepareConfig) -> str:
    """Prepare the data and return a one-line summary.

    Raises:
        InputError: the raw files cannot be used.
        ArtifactError: `config.out` contains something other than an artifact, or another run is writing it.
    """
    source = open_source(config)
    table = read_item_table(source.items(), config.types, source.untyped, source.types)
    sources = _digests(config, source)
    with write_artifact(config.out, "prepared", config, sources) as draft:
        (draft.path / PICTURES).mkdir()
        items, set_aside = _keep_items(table.frame, source, config, draft.path)
        splits = _split(items, config)
        unread: Counter[str] = Counter()
        if config.edges is None:
            graph = graph_of_log(items, splits, read_log_table(source.interactions(), unread), config)
        else:
            graph = graph_of_edges(items, splits, config)
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
                "changes": {
                    **table.changes,
                    **source.changes,
                    **{f"unread {name}": count for name, count in unread.items()},
                },
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
    table: pl.DataFrame, source: Source, config: PrepareConfig, folder: Path
) -> tuple[list[Item], dict[str, str]]:
    """Return the usable items in their order, and the reason for each skipped item."""
    root = config.images or config.folder or config.items[0].parent
    rows = list(table.iter_rows(named=True))
    attributes = [name for name in table.columns if name not in ITEM_COLUMNS]

    def keep(position: int) -> Item | str:
        row = rows[position]
        title, description = row["title"].strip(), row["description"].strip()
        text = compose_text(config.text_fields, title, row["categories"], description)
        if not text:
            return f"no text in {', '.join(config.text_fields)}"
        values = {name: row[name] for name in attributes if row[name] is not None}
        if (reason := refusal(row["item_id"], title, description, row["categories"], values)) is not None:
            return reason
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
            attributes=values,
        )

    with ThreadPoolExecutor() as pool:
        results = list(progress(pool.map(keep, range(len(rows))), "reading pictures", len(rows)))
    items = [result for result in results if isinstance(result, Item)]
    set_aside = {
        row["item_id"]: result for row, result in zip(rows, results, strict=True) if isinstance(result, str)
    }
    pictured = sum(bool(item.picture) for item in items)
    without_any = not pictured and not set_aside and len(items) >= MIN_PICTURED_ITEMS
    if pictured < MIN_PICTURED_ITEMS and not without_any:
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
    pictured = np.asarray([row for row, item in enumerate(items) if item.picture] or range(len(items)))
    order = np.random.default_rng(config.seed).permutation(pictured)
    test = round(len(pictured) * config.test_share)
    validation = round(len(pictured) * config.validation_share)
    splits = [Split.TRAIN] * len(items)
    for row in order[:test]:
        splits[row] = Split.TEST
    for row in order[test : test + validation]:
        splits[row] = Split.VALIDATION
    return splits


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
