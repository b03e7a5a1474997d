"""A fake encoder, and the artifacts of a shop of twelve items, for the tests of `indexes` and `service`."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from jaxtyping import Float32
from numpy import ndarray
from PIL import Image
from pydantic import BaseModel

from indexes.builder.build import build
from indexes.config import BuildConfig, IndexKind
from indexes.storage.layout import newest_generation
from model.artifact import write_artifact
from model.checkpoint.calibration import UNCALIBRATED, Calibration
from model.checkpoint.checkpoint import Checkpoint, write_contents
from model.checkpoint.training_metrics import TrainingMetrics
from model.checkpoint.validity import PairVectors, ValidityHead
from model.data.pictures.images import load_picture
from model.data.prepared_data import Prepared
from model.embeddings.attention_map import Attention, Box, PatchWeights, weigh_words
from model.embeddings.encoder_protocol import ItemReader, PictureFolder, ReadItems
from model.embeddings.encoding import Encoding, ItemTokens, TokenRows
from model.embeddings.free_text import FreeTextRelation
from model.errors import PictureError, UnknownRelationError
from model.records import INTRA_RELATION, Attribute, Edge, Item, Relation, Split
from model.relation_file import save_relations
from model.similarity import Similarity, View

DIM = 16

RELATIONS = (
    INTRA_RELATION,
    Relation("gardeners", "Co-purchased by people who primarily buy Garden, followed by Kitchen."),
    Relation("worn together / office", "Worn together at the office."),
    Relation("new-parents", "Co-purchased by people who primarily buy Feeding, followed by Nursery."),
)

ATTRIBUTES: dict[str, dict[str, Attribute]] = {
    "red-mug": {"price": 8.5, "stock": 3, "brand": "Ton", "model": "mug", "sale": True},
    "blue-mug": {"price": 8.5, "stock": 0, "brand": "Ton", "model": "mug", "sale": False},
    "twin-1": {"price": 25, "stock": 2, "model": "can"},
    "twin-2": {"price": 24.99, "stock": 9, "model": "can"},
    "twin-3": {"price": "on request", "model": "can"},
    "cot": {"price": 199, "stock": 1, "brand": "Wiege"},
    "tie": {"brand": "Seide", "price": 35.0},
}

ITEMS = tuple(
    Item(
        item_id,
        title,
        f"{title}, new.",
        categories,
        f"{title}. {', '.join(categories)}",
        f"pictures/{row:05d}.png",
        ATTRIBUTES.get(item_id, {}),
    )
    for row, (item_id, title, categories) in enumerate(
        [
            ("red-mug", "Red striped mug", ("Kitchen",)),
            ("blue-mug", "Blue striped mug", ("Kitchen",)),
            ("twin-1", "Green watering can", ("Garden", "Tools")),
            ("twin-2", "Green watering can", ("Garden", "Tools")),
            ("twin-3", "Green watering can", ("Garden", "Tools")),
            ("a/b?c#d e", "Grey desk lamp", ("Office",)),
            ("tasse-é", "Weiße Tasse", ("Kitchen",)),
            ("cot", "Wooden cot", ("Nursery",)),
            ("bottle", "Feeding bottle", ("Feeding",)),
            ("trowel", "Steel trowel", ("Garden", "Tools")),
            ("tie", "Blue silk tie", ("Clothing",)),
            ("bib", "Striped bib", ("Feeding",)),
        ]
    )
)

EDGES = (
    Edge("bib", "bottle", "new-parents", 9, 0.5, Split.TRAIN),
    Edge("bottle", "cot", "new-parents", 7, 0.4, Split.TRAIN),
    Edge("trowel", "twin-1", "gardeners", 5, 0.3, Split.TEST),
)


@dataclass(frozen=True)
class _Reader:
    """Reader that decodes each picture in the calling thread."""

    encoder: "FakeEncoder"
    depth: int = 4

    def read(self, texts: Sequence[str], paths: Sequence[Path | None], tokens: bool) -> ReadItems:
        errors: dict[int, PictureError] = {}
        kept, pictures = [], []
        for row, path in enumerate(paths):
            try:
                pictures.append(None if path is None else load_picture(path))
                kept.append(texts[row])
            except PictureError as error:
                errors[row] = error
        return ReadItems(errors, self.encoder.read_items(kept, pictures, tokens))


class FakeEncoder:
    """Encoder whose vectors are sums of fixed random vectors.

    Each word and each picture colour has its own random vector under each relation. Texts that share words therefore
    have similar vectors. The vectors have no other structure.
    """

    relations = RELATIONS
    dim = DIM
    device = "cpu"
    towers = "fp32 by torch"

    def encode_items(self, texts: Sequence[str], pictures: Sequence[Image.Image | None]) -> Encoding:
        return self.read_items(texts, pictures)()

    def read_items(
        self, texts: Sequence[str], pictures: Sequence[Image.Image | None], tokens: bool = False
    ) -> Callable[[], Encoding]:
        colours = [_colours(picture) for picture in pictures]
        seen = ItemTokens(self.text_tokens(texts), _tokens(colours)) if tokens else None
        return lambda: Encoding(self.encode_texts(texts), _sums(colours), seen)

    @contextmanager
    def open_reader(self, folder: PictureFolder, batch_size: int) -> Iterator[ItemReader]:
        yield _Reader(self)

    def encode_texts(self, texts: Sequence[str]) -> Float32[ndarray, "texts relations dim"]:
        return _sums([_words(text) for text in texts])

    def text_tokens(self, texts: Sequence[str]) -> TokenRows:
        return _tokens([_words(text) for text in texts])

    def read_relation(self, description: str) -> FreeTextRelation:
        """Return a free-text relation that attends to tokens similar to its own words.

        Its nearest relations are those whose descriptions share the most words with it.
        """
        words = set(_words(description))
        shared = {
            position: len(words & set(relation.description.lower().split()))
            for position, relation in enumerate(RELATIONS)
            if not relation.intra
        }
        drawn = sum(_drawn(word, INTRA_RELATION) for word in sorted(words)) / len(words)
        query = np.asarray(drawn, np.float32)
        nearest = tuple(sorted(shared, key=lambda position: -shared[position]))
        return FreeTextRelation(description, query, np.eye(DIM, dtype=np.float32), nearest, 2 * query)

    def explain(
        self, text: str | None, picture: Image.Image | None, relation: str | FreeTextRelation
    ) -> Attention:
        """Weigh all words equally, or by their relevance to a free-text relation; a picture is one patch."""
        ids = tuple(known.relation_id for known in RELATIONS)
        if isinstance(relation, str) and relation not in ids:
            raise UnknownRelationError(relation, ids)
        image = None if picture is None else PatchWeights(np.ones((1, 1), np.float32), 0.0, Box(0, 0, 1, 1))
        if text is None:
            return Attention(None, image)
        spans = [(word.start(), word.end()) for word in re.finditer(r"\S+", text)] or [(0, len(text))]
        states = self.text_tokens([text]).states.astype(np.float64)
        scores = np.zeros(len(spans)) if isinstance(relation, str) else states @ relation.query
        weights = np.exp(scores) / np.exp(scores).sum()
        return Attention(weigh_words(text, spans, weights.tolist()), image)


def _words(text: str) -> list[str]:
    """Split a text into words; a blank text is one word, as for a real network, and an empty text has none."""
    return text.lower().split() or [text][: len(text)]


def _colours(picture: Image.Image | None) -> list[str]:
    return [] if picture is None else [str(picture.getpixel((0, 0)))]


def _tokens(words: Sequence[Sequence[str]]) -> TokenRows:
    states = [_drawn(word, INTRA_RELATION) for item in words for word in item]
    starts = np.cumsum([0, *(len(item) for item in words)])
    return TokenRows(np.asarray(states, np.float16).reshape(-1, DIM), starts)


def _sums(words: Sequence[Sequence[str]]) -> Float32[ndarray, "items relations dim"]:
    sums = [
        [sum((_drawn(word, relation) for word in item), np.zeros(DIM)) for relation in RELATIONS]
        for item in words
    ]
    vectors = np.asarray(sums, dtype=np.float32)
    vectors = vectors.reshape(len(words), len(RELATIONS), DIM)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6))


@cache
def _drawn(word: str, relation: Relation) -> ndarray:
    """Return the vector of a word. Drawing takes 25 us in Python, so it would hold the interpreter like no network."""
    seed = hashlib.sha256(f"{relation.relation_id} {word}".encode()).digest()
    return np.random.default_rng(list(seed)).standard_normal(DIM)


@dataclass(frozen=True)
class FakeShop:
    """Paths of the artifacts, and the reference arithmetic that an index over them must match."""

    prepared: Path
    checkpoint: Path
    index: Path

    @property
    def generation(self) -> Path:
        """The only generation of the index."""
        return newest_generation(self.index)

    def vectors(self, relation_id: str, view: View) -> Float32[ndarray, "items dim"]:
        """Return the vectors of all items, rounded to half precision as an index stores them."""
        pictures = [Image.open(self.prepared / item.picture) for item in ITEMS]
        encoding = FakeEncoder().encode_items([item.text for item in ITEMS], pictures)
        return encoding.view(view)[:, relation_position(relation_id)].astype(np.float16).astype(np.float32)

    def ranking(self, item_id: str, relation_id: str, similarity: Similarity) -> list[tuple[str, float]]:
        """Return every other item and its score, best first; equal scores are in catalogue order."""
        query_view, target_view = similarity.views
        row = ids().index(item_id)
        scores = self.vectors(relation_id, target_view) @ self.vectors(relation_id, query_view)[row]
        order = sorted(
            (other for other in range(len(ITEMS)) if other != row), key=lambda r: (-_rounded(scores[r]), r)
        )
        return [(ids()[other], min(float(scores[other]), 1.0)) for other in order]

    def cosine(self, item_a: str, item_b: str, relation_id: str, similarity: Similarity) -> float:
        """Return the score of one pair under one relation."""
        return dict(self.ranking(item_a, relation_id, similarity))[item_b]

    def probability(self, item_a: str, item_b: str, relation_id: str) -> float:
        """Return the validity head's probability that a relation holds for one pair."""
        a, b = ids().index(item_a), ids().index(item_b)
        text, image = self.vectors(relation_id, View.TEXT), self.vectors(relation_id, View.IMAGE)
        relation = relation_vectors()[relation_position(relation_id)]
        pair = PairVectors(text[[a]], image[[a]], text[[b]], image[[b]], relation[None])
        return float(validity_head().probability(pair)[0])


def ids() -> list[str]:
    """Return the item IDs in catalogue order."""
    return [item.item_id for item in ITEMS]


def relation_vectors() -> Float32[ndarray, "relations dim"]:
    """Return random vectors as the h_E of the relations."""
    return np.random.default_rng(1).standard_normal((len(RELATIONS), DIM)).astype(np.float32)


def validity_head(seed: int = 2) -> ValidityHead:
    """Return a head with random weights, small enough for probabilities well within (0, 1)."""
    random = np.random.default_rng(seed)
    features = 4 * DIM + 3
    return ValidityHead(
        random.normal(0, 0.1, (features, 8)).astype(np.float32),
        random.normal(0, 0.1, 8).astype(np.float32),
        random.normal(0, 0.5, 8).astype(np.float32),
        np.asarray(0.1, np.float32),
    )


class _NoOptions(BaseModel):
    """Empty options, for an artifact that a test writes."""


class _TitlesAndCategories(BaseModel):
    """Options of prepared data that a test writes; only the options that an index reads."""

    text_fields: tuple[str, ...] = ("title", "categories")
    picture_size: int = 64


def write_prepared(folder: Path, items: Sequence[Item] = ITEMS) -> None:
    """Write prepared data; items with equal titles have pictures of equal colour."""
    with write_artifact(folder, "prepared", _TitlesAndCategories()) as draft:
        (draft.path / "pictures").mkdir()
        for item in items:
            if not item.picture:
                continue
            colour = hashlib.sha256(item.title.encode()).digest()[:3]
            Image.new("RGB", (8, 8), tuple(colour)).save(draft.path / item.picture)
        rows = [
            {
                "item_id": item.item_id,
                "title": item.title,
                "description": item.description,
                "categories": list(item.categories),
                "text": item.text,
                "attributes": json.dumps(item.attributes),
                "picture": item.picture,
                "split": Split.TRAIN.value,
            }
            for item in items
        ]
        pl.DataFrame(rows).write_parquet(draft.path / "items.parquet")
        edges = [
            {**{name: getattr(edge, name) for name in Edge.__slots__}, "split": edge.split.value}
            for edge in EDGES
        ]
        pl.DataFrame(edges).write_parquet(draft.path / "edges.parquet")
        save_relations(draft.path, RELATIONS)


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


def write_checkpoint(folder: Path, seed: int = 2, calibration: Calibration = UNCALIBRATED) -> None:
    """Write a checkpoint without weights; a different `seed` gives a different digest."""
    with write_artifact(folder, "checkpoint", _NoOptions()) as draft:
        write_contents(
            draft.path, RELATIONS, relation_vectors(), validity_head(seed), METRICS, "# A shop\n", calibration
        )


def write_shop(
    folder: Path,
    token_store: bool = False,
    calibration: Calibration = UNCALIBRATED,
    kind: IndexKind | Literal["auto"] = "auto",
) -> FakeShop:
    """Write all three artifacts into `folder`."""
    shop = FakeShop(folder / "prepared", folder / "checkpoint", folder / "index")
    write_prepared(shop.prepared)
    write_checkpoint(shop.checkpoint, calibration=calibration)
    config = BuildConfig(
        checkpoint=shop.checkpoint,
        prepared=shop.prepared,
        out=shop.index,
        batch_size=5,
        token_store=token_store,
        kind=kind,
    )
    build(config, FakeEncoder(), Checkpoint.open(shop.checkpoint), Prepared.open(shop.prepared))
    return shop


def relation_position(relation_id: str) -> int:
    """Return the position of a relation in `RELATIONS`."""
    return [relation.relation_id for relation in RELATIONS].index(relation_id)


def _rounded(score: float) -> float:
    """Round a score, because BLAS, unlike FAISS, may sum equal rows in different orders."""
    return round(float(score), 5)
