"""The relations of a generation: those of its checkpoint, and behind them those that were added at run time.

    relations.json      all, in the order of the vectors, and how many pairs of items are known under each
    added.safetensors   if some were added: their free-text form (`FreeTextRelation`), a row each

The free-text form is all that it takes to make the vector of any item from its tokens, without the network.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from model.embeddings.free_text import FreeTextRelation
from model.records import Relation

RELATIONS_FILE = "relations.json"
"""File of all relations within a generation."""

ADDED_RELATIONS_FILE = "added.safetensors"
"""File of the free-text form of the added relations, if there are any."""


@dataclass(frozen=True, slots=True)
class IndexedRelation:
    """A relation under which all items have vectors.

    `pairs` counts the pairs of items that were known under it when the index was built, and `paired_items` the items
    that stand in one; the intra-sample one has no counts, nor has one that was added, and a generation of an earlier
    rcml none of items. `free_text` is the form of an added one that makes vectors; None otherwise.
    """

    relation: Relation
    pairs: int | None
    free_text: FreeTextRelation | None = None
    paired_items: int | None = None

    @property
    def relation_id(self) -> str:
        """Its id."""
        return self.relation.relation_id


def save_relations(folder: Path, relations: Sequence[IndexedRelation]) -> None:
    """Write the relations of a generation, the added ones last, into its `folder`."""
    records = [
        {**asdict(known.relation), "pairs": known.pairs, "paired_items": known.paired_items}
        for known in relations
    ]
    text = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    (folder / RELATIONS_FILE).write_text(text, encoding="utf-8")
    added = [known.free_text for known in relations if known.free_text is not None]
    assert all(known.free_text is None for known in relations[: len(relations) - len(added)])
    if added:
        arrays = {
            "query": np.stack([one.query for one in added]),
            "output": np.stack([one.output for one in added]),
            "nearest": np.array([one.nearest for one in added], np.int64),
            "vector": np.stack([one.vector for one in added]),
        }
        (folder / ADDED_RELATIONS_FILE).write_bytes(
            save(arrays)
        )  # safetensors itself hides why a disk takes no more


def load_relations(folder: Path) -> tuple[IndexedRelation, ...]:
    """Read the relations of a generation, as `save_relations` wrote them."""
    records = json.loads((folder / RELATIONS_FILE).read_text(encoding="utf-8"))
    pairs = [record.pop("pairs") for record in records]
    paired_items = [record.pop("paired_items", None) for record in records]
    relations = [Relation(**record) for record in records]
    free_texts: list[FreeTextRelation | None] = [None] * len(relations)
    if (folder / ADDED_RELATIONS_FILE).exists():
        arrays = load_file(folder / ADDED_RELATIONS_FILE)
        rows = zip(*(arrays[name] for name in ("query", "output", "nearest", "vector")), strict=True)
        first = len(relations) - len(arrays["query"])
        for place, (query, output, nearest, vector) in enumerate(rows, first):
            description = relations[place].description
            free_texts[place] = FreeTextRelation(description, query, output, tuple(nearest.tolist()), vector)
    return tuple(map(IndexedRelation, relations, pairs, free_texts, paired_items))
