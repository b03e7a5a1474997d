"""Index of random items without a network or pictures, for benchmarks in which only speed matters."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from pydantic import BaseModel

from indexes.config import BuildConfig, IndexKind
from indexes.journal.change import Change
from indexes.storage.attributes import write_attributes
from indexes.storage.catalogue import write_catalogue
from indexes.storage.layout import newest_generation, next_generation, write_checkpoint_path
from indexes.storage.precomputed import ANSWERS_DIR, write_precomputed
from indexes.vectors.backends import VECTORS_DIR, open_vectors
from indexes.vectors.faiss_backend import write_vectors
from model.artifact import PICTURES, read_manifest, write_artifact
from model.checkpoint.checkpoint import write_contents
from model.checkpoint.training_metrics import TrainingMetrics
from model.checkpoint.validity import ValidityHead
from model.embeddings.encoding import Encoding
from model.records import INTRA_RELATION, Item, Relation
from model.similarity import Similarity, View

from .embeddings import Embeddings


class _NoOptions(BaseModel):
    """Options of a checkpoint that was never trained."""


METRICS = TrainingMetrics(
    objective="rcml",
    steps=0,
    best_step=0,
    validation_hit_at_5=0.0,
    validation_validity_accuracy=0.0,
    parameters=0,
    device="cpu",
    ranks=1,
    seconds=0.0,
    pairs_per_second=0.0,
    data_wait_share=0.0,
    history=(),
)
"""Metrics of a checkpoint that was never trained."""


@dataclass(frozen=True)
class Shop:
    """Index to write: vectors of `views` under all `relations`, and precomputed answers for some similarities."""

    folder: Path
    items: int
    relations: tuple[Relation, ...]
    dim: int
    kind: IndexKind = "flat"
    views: tuple[View, ...] = tuple(View)
    answers: tuple[Similarity, ...] = ()
    min_recall: float = 0.95
    vectors: Path | None = None
    """Folder of an index with the same vectors. Its files are linked instead of generated again."""

    def write(self) -> Path:
        """Write the checkpoint and the index; return the folder of the index."""
        shape = (len(self.relations), self.dim)
        with write_artifact(self.folder / "checkpoint", "checkpoint", _NoOptions()) as draft:
            features = 4 * self.dim + 3
            bias, weight = np.zeros((2, 1), np.float32)
            head = ValidityHead(np.zeros((features, 1), np.float32), bias, weight, np.zeros((), np.float32))
            write_contents(draft.path, self.relations, np.zeros(shape, np.float32), head, METRICS, "")
        checkpoint, out = draft.path.parent / "checkpoint", self.folder / "index"
        out.mkdir()
        parents = {"checkpoint": read_manifest(checkpoint, "checkpoint").digest, "prepared": "0" * 64}
        config = BuildConfig(
            checkpoint=checkpoint,
            prepared=self.folder / "prepared",
            out=out,
            kind=self.kind,
            min_recall=self.min_recall,
        )
        with write_artifact(next_generation(out), "index", config, parents) as draft:
            items = [item(n) for n in range(self.items)]
            vectors = draft.path / VECTORS_DIR
            if self.vectors is None:
                write_vectors(vectors, *shape, self._chunks, self.kind, self.min_recall, views=self.views)
            else:
                shutil.copytree(newest_generation(self.vectors) / VECTORS_DIR, vectors, copy_function=os.link)
            with closing(open_vectors(vectors)) as opened:
                write_precomputed(draft.path / ANSWERS_DIR, opened, range(shape[0]), self.answers)
            write_catalogue(draft.path, items)
            write_attributes(draft.path, items)
            (draft.path / PICTURES).mkdir()
            (draft.path / PICTURES / "none.png").write_bytes(b"")
            relations = [{**asdict(relation), "pairs": None} for relation in self.relations]
            (draft.path / "relations.json").write_text(json.dumps(relations))
            write_checkpoint_path(draft.path, checkpoint, out)
            draft.counts.update(items=self.items, relations=len(self.relations), sequence=0, built=0)
        return out

    def _chunks(self, relation: int, view: View) -> Iterator[np.ndarray]:
        return Embeddings(3 * relation + [*View].index(view), self.dim).chunks(self.items)

    def changes(self) -> Iterator[Change]:
        """Yield changes that add new items, without end; their vectors are near those of existing items."""
        draw = np.random.default_rng(1)
        near = np.stack(
            [
                [
                    Embeddings(3 * relation + view, self.dim).queries(500)
                    for relation in range(len(self.relations))
                ]
                for view in range(len(View))
            ]
        )
        number = self.items
        while True:
            for place in draw.permutation(500):
                yield Change.put(item(number), near[:, :, place].astype(np.float16), b"")
                number += 1


class FixedEncoder:
    """Encoder without a network that takes `batch` seconds per batch and `each` seconds per item of the batch."""

    device = towers = "none"

    def __init__(self, relations: int = 10, dim: int = 128, batch: float = 0.0, each: float = 0.0) -> None:
        self.relations = tuple(Relation(f"relation-{n}", f"Relation {n}.", n == 0) for n in range(relations))
        self.dim = dim
        self._batch, self._each = batch, each

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[object], tokens: bool = False
    ) -> Callable[[], Encoding]:
        """Return a function that encodes the items; equal texts have equal vectors."""

        def encode() -> Encoding:
            time.sleep(self._batch + self._each * len(texts))
            return Encoding(self.encode_texts(texts), np.zeros((len(texts), len(self.relations), self.dim)))

        return encode

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        """Return the vectors of `texts` without a delay."""
        shape = (len(self.relations), self.dim)
        drawn = [np.random.default_rng(len(text)).standard_normal(shape, np.float32) for text in texts]
        vectors = np.stack(drawn)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def item(number: int) -> Item:
    """Create an item with a title, a category and one of a hundred prices."""
    return Item(
        f"item-{number}",
        f"Item {number}",
        "",
        ("Kitchen",),
        f"Item {number}. Kitchen",
        f"{PICTURES}/none.png",
        {"price": number % 100, "stock": number % 7, "brand": f"Brand {number % 50}"},
    )


def relations(count: int) -> tuple[Relation, ...]:
    """Create `count` relations, of which the first is the intra-sample relation."""
    others = (Relation(f"relation-{n}", f"Relation {n}.") for n in range(1, count))
    return (INTRA_RELATION, *others)
