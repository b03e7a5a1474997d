"""An index, opened: which items go with this one, which relations link two, how surely one holds.

It joins the catalogue (what items are), the vectors (where they lie under each relation) and the torch-free
part of the checkpoint (the relations, the validity head). The service asks it; it knows no HTTP and no torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from model.artifact import Manifest, open_artifact
from model.checkpoint import Checkpoint
from model.errors import MismatchError, UnknownRelationError
from model.records import Item, Relation, Similarity, View
from model.validity import PairVectors

from .catalogue import Catalogue
from .faiss_vectors import FOLDER, FaissVectors
from .vectors import VectorIndex


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found, and its cosine with the query."""

    item: Item
    score: float


@dataclass(frozen=True, slots=True)
class RelationScore:
    """A relation, and the cosine of two items under it."""

    relation: Relation
    score: float


@dataclass(frozen=True)
class Index:
    """The contents of an index folder, digests checked.

    `pairs` counts the pairs of items that were known under each relation when the index was made, by
    relation id; the intra-sample relation has no count.
    """

    path: Path
    manifest: Manifest
    checkpoint: Checkpoint
    catalogue: Catalogue
    vectors: VectorIndex
    pairs: dict[str, int | None]

    @classmethod
    def open(cls, path: Path, checkpoint: Path | None = None) -> "Index":
        """Open the index at `path` with the checkpoint it names, or with `checkpoint`.

        Raises:
            ArtifactError: either is missing or damaged.
            MismatchError: the index was made from another checkpoint.
        """
        manifest = open_artifact(path, "index")
        if checkpoint is None:
            checkpoint = (path / json.loads((path / "checkpoint.json").read_text("utf-8"))["path"]).resolve()
        parent = Checkpoint.open(checkpoint)
        made_from, found = manifest.parents["checkpoint"], parent.manifest.digest
        if made_from != found:
            raise MismatchError(
                f"The index at {path} was made from checkpoint {made_from[:12]}, but the checkpoint at "
                f"{checkpoint} is {found[:12]}. Run `rcml index build` again, or name the right one with "
                "--checkpoint."
            )
        relations = json.loads((path / "relations.json").read_text("utf-8"))
        return cls(
            path=path,
            manifest=manifest,
            checkpoint=parent,
            catalogue=Catalogue.open(path),
            vectors=FaissVectors(path / FOLDER),
            pairs={relation["relation_id"]: relation["pairs"] for relation in relations},
        )

    def close(self) -> None:
        """Give the files back."""
        self.catalogue.close()

    @property
    def relations(self) -> tuple[Relation, ...]:
        """All relations, the intra-sample one first."""
        return self.checkpoint.relations

    def relation(self, relation_id: str) -> Relation:
        """The relation of this id.

        Raises:
            UnknownRelationError: there is none.
        """
        return self.relations[self.position(relation_id)]

    def position(self, relation_id: str) -> int:
        """Place of a relation among `relations`.

        Raises:
            UnknownRelationError: there is none of this id.
        """
        known = tuple(relation.relation_id for relation in self.relations)
        if relation_id not in known:
            raise UnknownRelationError(relation_id, known)
        return known.index(relation_id)

    def neighbours(self, item_id: str, relation_id: str, similarity: Similarity, k: int) -> list[Hit]:
        """The `k` items that go best with an item of the catalogue under a relation, itself left out.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
        """
        relation = self.position(relation_id)
        row = self.catalogue.row(item_id)
        query_view, target_view = similarity.views
        query = self.vectors.vectors(relation, query_view, [row])[0]
        return self._hits(relation, target_view, query, k, frozenset({row}))

    def search(self, query: Float32[ndarray, " dim"], relation_id: str, view: View, k: int) -> list[Hit]:
        """The `k` items whose `view` is nearest to a unit vector made under the same relation.

        Raises:
            UnknownRelationError: there is no such relation.
        """
        return self._hits(self.position(relation_id), view, query, k)

    def relation_scores(self, item_a: str, item_b: str, similarity: Similarity) -> list[RelationScore]:
        """All relations between different items, the likeliest link of these two first.

        `similarity` compares a view of `item_a` with a view of `item_b`: the order matters for TI and IT.

        Raises:
            UnknownItemError: there is no such item.
        """
        rows = [self.catalogue.row(item_a), self.catalogue.row(item_b)]
        view_a, view_b = similarity.views
        scores = [
            RelationScore(relation, self._cosine(position, rows, view_a, view_b))
            for position, relation in enumerate(self.relations)
            if not relation.intra
        ]
        return sorted(scores, key=lambda scored: -scored.score)

    def validity(self, item_a: str, item_b: str, relation_id: str) -> float:
        """Probability in (0, 1) that the relation holds between the two items; their order does not matter.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
        """
        relation = self.position(relation_id)
        rows = [self.catalogue.row(item_a), self.catalogue.row(item_b)]
        texts = self.vectors.vectors(relation, View.TEXT, rows)
        images = self.vectors.vectors(relation, View.IMAGE, rows)
        pair = PairVectors(
            text_a=texts[:1],
            image_a=images[:1],
            text_b=texts[1:],
            image_b=images[1:],
            relation=self.checkpoint.relation_vectors[relation : relation + 1],
        )
        return float(self.checkpoint.validity.probability(pair)[0])

    def _hits(
        self,
        relation: int,
        view: View,
        query: Float32[ndarray, " dim"],
        k: int,
        dropped: frozenset[int] = frozenset(),
    ) -> list[Hit]:
        found = self.vectors.search(relation, view, query, k, dropped=dropped)
        items = self.catalogue.at(found.rows.tolist())
        return [Hit(item, score) for item, score in zip(items, found.scores.tolist(), strict=True)]

    def _cosine(self, relation: int, rows: list[int], view_a: View, view_b: View) -> float:
        a = self.vectors.vectors(relation, view_a, rows[:1])[0]
        b = self.vectors.vectors(relation, view_b, rows[1:])[0]
        return float(np.clip(a @ b, -1.0, 1.0))
