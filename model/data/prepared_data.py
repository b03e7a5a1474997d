"""A prepared data set, as `rcml prepare` leaves it: items with their split, relations, and edges.

    prepared/
      manifest.json config.json
      items.parquet      item_id, title, description, categories, text, picture, attributes (JSON), split
      relations.json     the relations, the intra-sample one first
      edges.parquet      item_a, item_b, relation_id, support, npmi, split
      pictures/          one file an item, scaled down
      report.json report.md   counts of users, pairs and items, and what was set aside

Free of torch: training, evaluation and indexing all start here.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from model.artifact import Manifest, open_artifact
from model.records import Edge, Item, Relation, Split
from model.relation_file import load_relations

from .item_input import ItemFormat


@dataclass(frozen=True)
class Prepared:
    """A prepared data set, digests checked. `splits[i]` belongs to `items[i]`."""

    path: Path
    manifest: Manifest
    items: tuple[Item, ...]
    splits: tuple[Split, ...]
    relations: tuple[Relation, ...]
    edges: tuple[Edge, ...]

    @classmethod
    def open(cls, path: Path) -> "Prepared":
        """Open the prepared data at `path`.

        Raises:
            ArtifactError: there is none, or it is damaged.
        """
        manifest = open_artifact(path, "prepared")
        items = pl.read_parquet(path / "items.parquet")
        fields = ("item_id", "title", "description", "categories", "text", "picture", "attributes")
        return cls(
            path=path,
            manifest=manifest,
            items=tuple(
                Item(
                    **{
                        **row,
                        "categories": tuple(row["categories"]),
                        "attributes": json.loads(row["attributes"]),
                    }
                )
                for row in items.select(fields).iter_rows(named=True)
            ),
            splits=tuple(Split(name) for name in items["split"]),
            relations=load_relations(path),
            edges=tuple(
                Edge(**{**row, "split": Split(row["split"])})
                for row in pl.read_parquet(path / "edges.parquet").iter_rows(named=True)
            ),
        )

    @property
    def composition(self) -> ItemFormat:
        """How its items were made of what the shop says of them."""
        return ItemFormat.read(self.path / "config.json")

    def rows(self, split: Split) -> list[int]:
        """List the positions of the items of `split` that have a picture; nothing is learnt from the others."""
        return [
            row
            for row, (item, of) in enumerate(zip(self.items, self.splits, strict=True))
            if of == split and item.picture
        ]

    def partners(self) -> dict[str, set[str]]:
        """Map each item to the items it shares any relation with, anywhere in the graph."""
        found: dict[str, set[str]] = defaultdict(set)
        for edge in self.edges:
            found[edge.item_a].add(edge.item_b)
            found[edge.item_b].add(edge.item_a)
        return found
