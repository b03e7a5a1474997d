"""Prepared data set, written by `rcml prepare`: items with their splits, relations, and edges.

    prepared/
      manifest.json config.json
      items.parquet      item_id, title, description, categories, text, picture, attributes (JSON), split
      relations.json     the relations, the intra-sample relation first
      edges.parquet      item_a, item_b, relation_id, support, npmi, split
      edges_across.parquet   the same columns: edges between a training item and a validation or test item
      log.parquet        user, item, relation_id: the kept interactions; absent for ready-made edges
      pictures/          one scaled file for each item with a picture
      report.json report.md report.html   verdict, counts, sample pairs, and the skipped items

Training, evaluation and indexing start from this data set. Data written by earlier versions has neither
edges_across.parquet nor log.parquet. This module does not import torch.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from jaxtyping import Int
from numpy import ndarray

from model.artifact import Manifest, open_artifact
from model.errors import ArtifactError, InputError
from model.plain_file import decoding
from model.records import Edge, Item, Relation, Split
from model.relation_file import load_relations

from .item_input import ItemFormat

ITEMS_FILE = "items.parquet"

EDGES_FILE = "edges.parquet"

EDGES_ACROSS_FILE = "edges_across.parquet"

LOG_FILE = "log.parquet"


@dataclass(frozen=True)
class Prepared:
    """Prepared data set with verified digests. `splits[i]` is the split of `items[i]`.

    `edges` connect items of the same split; only these are trained on. `edges_across` connect a training item with a
    validation or test item, and their split is that of the held-out item.
    """

    path: Path
    manifest: Manifest
    items: tuple[Item, ...]
    splits: tuple[Split, ...]
    relations: tuple[Relation, ...]
    edges: tuple[Edge, ...]
    edges_across: tuple[Edge, ...]

    @classmethod
    def open(cls, path: Path) -> "Prepared":
        """Open the prepared data at `path` and verify its digests.

        Raises:
            ArtifactError: the data does not exist or is damaged.
        """
        manifest = open_artifact(path, "prepared")
        items, splits = _read_items(path / ITEMS_FILE)
        for item in items:
            if item.picture and item.picture not in manifest.files:
                raise ArtifactError(
                    f"{path / ITEMS_FILE} names the picture {item.picture!r} of item {item.item_id!r}, which the "
                    "manifest does not list. Run `rcml prepare` again."
                )
        return cls(
            path=path,
            manifest=manifest,
            items=items,
            splits=splits,
            relations=load_relations(path),
            edges=_read_edges(path / EDGES_FILE),
            edges_across=_read_edges(path / EDGES_ACROSS_FILE) if EDGES_ACROSS_FILE in manifest.files else (),
        )

    @property
    def digests(self) -> dict[str, str]:
        """Digests of the folders that the data was read from, by the names of parents in a manifest."""
        return {"prepared": self.manifest.digest}

    def require_pictures(self) -> None:
        """Refuse data without pictures, whose relations can be judged but not trained on or evaluated.

        Raises:
            InputError: no item has a picture.
        """
        if not any(item.picture for item in self.items):
            raise InputError(
                f"{self.path} has no item with a picture, which training and evaluation need. Give pictures to "
                "`rcml prepare`, or add --fetch if they are addresses."
            )

    def part(self, domain: int) -> "Prepared":
        """Return the data of one domain; here, there is only one."""
        return self

    @property
    def domain_of_relation(self) -> Int[ndarray, " relations"]:
        """Number of the domain of each relation; -1 for the relation of an item with itself."""
        return np.array([-1 if relation.intra else 0 for relation in self.relations])

    @property
    def composition(self) -> ItemFormat:
        """Input format of the items."""
        return ItemFormat.read(self.path / "config.json")

    def interactions(self) -> pl.DataFrame | None:
        """Read the interactions that the filters kept, or return None if the data was made from ready-made edges.

        Columns: `user` (a number from 0, not the ID in the log), `item` (a row of `items`), and `relation_id` (the
        relation of the user's cluster). The rows are sorted by user and item, and no pair of the two is repeated.
        """
        return pl.read_parquet(self.path / LOG_FILE) if LOG_FILE in self.manifest.files else None

    def users(self) -> dict[str, int]:
        """Count the users of each relation; empty if the data was made from ready-made edges.

        The log may have many millions of rows, so they are not all in memory at once.
        """
        if LOG_FILE not in self.manifest.files:
            return {}
        log = pl.scan_parquet(self.path / LOG_FILE).group_by("relation_id").agg(pl.col("user").n_unique())
        return {str(relation): int(users) for relation, users in log.collect(engine="streaming").iter_rows()}

    @property
    def pictures(self) -> list[Path]:
        """Files of the pictures of all items that have one, in order."""
        return [self.path / item.picture for item in self.items if item.picture]

    def rows(self, split: Split) -> list[int]:
        """Return the positions of the items in `split` that have a picture; text-only items are not trained on."""
        return [
            row
            for row, (item, of) in enumerate(zip(self.items, self.splits, strict=True))
            if of == split and item.picture
        ]

    def partners(self) -> dict[str, set[str]]:
        """Map each item to all items of its split that share an edge with it, under any relation."""
        found: dict[str, set[str]] = defaultdict(set)
        for edge in self.edges:
            found[edge.item_a].add(edge.item_b)
            found[edge.item_b].add(edge.item_a)
        return found


def _read_items(path: Path) -> tuple[tuple[Item, ...], tuple[Split, ...]]:
    fields = ("item_id", "title", "description", "categories", "text", "picture", "attributes")
    with decoding(path):
        table = pl.read_parquet(path)
        items = (
            Item(
                **{
                    **row,
                    "categories": tuple(row["categories"]),
                    "attributes": json.loads(row["attributes"]),
                }
            )
            for row in table.select(fields).iter_rows(named=True)
        )
        return tuple(items), tuple(Split(name) for name in table["split"])


def _read_edges(path: Path) -> tuple[Edge, ...]:
    with decoding(path):
        rows = pl.read_parquet(path).iter_rows(named=True)
        return tuple(Edge(**{**row, "split": Split(row["split"])}) for row in rows)
