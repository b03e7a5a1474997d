"""Answers the questions of the API from an index and an encoder; knows no HTTP.

Everything here may be called from many threads at once: the index is made for that, and the encoder, which is
not, is behind a lock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Self

from indexes.comparison import RelationScore
from indexes.index import Hit, Index
from indexes.selection import EVERYTHING, Selection
from model.config import Device, Precision, TowerEngine
from model.encoding import ItemEncoder, WordedRelation
from model.errors import InputError, NoTokensError
from model.records import Item, Relation, Similarity, View
from model.validity import THRESHOLD

from .follower import Follower
from .settings import ServeConfig

OpenEncoder = Callable[[Path, Device, Precision, TowerEngine], ItemEncoder]
"""Opens the encoder of a checkpoint on a device, its towers in a precision and by an engine."""

KEPT = 16
"""Relations in words that are kept, and with each, as long, what all items are estimated at."""

QUICK_SCAN = 10_000_000
"""Vector components that one search reads in about a millisecond."""


def open_encoder(checkpoint: Path, device: Device, precision: Precision, engine: TowerEngine) -> ItemEncoder:
    """Open the network of a checkpoint; the one place of the service that loads torch."""
    from model.encoder import Encoder

    return Encoder.from_pretrained(checkpoint, device, precision=precision, engine=engine)


class IntraRelationError(InputError):
    """A question about two items was asked under the relation of an item with itself."""

    def __init__(self, relation_id: str, others: list[str]) -> None:
        super().__init__(f"{relation_id!r} relates an item to itself, not two different items.")
        self.relation_id = relation_id
        self.others = others


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a relation holds between two items: it does from `threshold` on."""

    probability: float
    threshold: float

    @property
    def valid(self) -> bool:
        """The decision."""
        return self.probability >= self.threshold


class Engine:
    """An index and the encoder of its checkpoint, ready to answer."""

    def __init__(self, index: Index, encoder: ItemEncoder, compact_at: int) -> None:
        self.index = index
        self._follower = Follower(index, compact_at)
        self._encoder = encoder
        self._encoding = Lock()
        self._relations: dict[str, WordedRelation] = {}

    @classmethod
    def open(cls, config: ServeConfig, open_encoder: OpenEncoder = open_encoder) -> Self:
        """Open the index and the network it was made with.

        Raises:
            ArtifactError: the index or its checkpoint is missing or damaged, or they do not belong together.
            InputError: the device or the engine of the towers asked for is not there.
        """
        index = Index.open(config.index, config.checkpoint)
        encoder = open_encoder(index.checkpoint.path, config.device, config.precision, config.engine)
        return cls(index, encoder, config.compact_at)

    def close(self) -> None:
        """Give the files back."""
        self._follower.close()
        self.index.close()

    @property
    def device(self) -> str:
        """Where new texts are encoded, in words."""
        return self._encoder.device

    @property
    def quick(self) -> bool:
        """Whether one search over this catalogue is a matter of a millisecond."""
        return len(self.index) * self.index.dim <= QUICK_SCAN

    def retrieve(
        self,
        item_id: str,
        relation: str | WordedRelation,
        similarity: Similarity,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """The `k` items that go best with an item under a relation, best first.

        Raises:
            UnknownItemError, UnknownRelationError, UnknownAttributeError: there is no such item or relation, or no
                item has an attribute that `selection` names.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        return self.index.neighbours(item_id, relation, similarity, k, selection)

    def retrieve_for_text(
        self,
        text: str,
        relation: str | WordedRelation,
        similarity: Similarity,
        k: int,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """The `k` items that go best with a new item known by its words alone.

        Raises:
            UnknownRelationError, UnknownAttributeError: there is no such relation, or no item has an attribute that
                `selection` names.
            NoTokensError: the relation is one in words, and the index keeps no tokens.
        """
        query_view, target_view = similarity.views
        assert query_view is View.TEXT, f"{similarity} needs a picture of the query"
        if isinstance(relation, WordedRelation):
            with self._encoding:
                tokens = self._encoder.text_tokens([text])
            query = relation.vectors(tokens)[0]
        else:
            position = self.index.position(relation)
            with self._encoding:
                query = self._encoder.encode_texts([text])[0, position]
        return self.index.search(query, relation, target_view, k, selection)

    def read_relation(self, description: str) -> WordedRelation:
        """A relation in words, ready to be asked about; the latest are kept.

        Raises:
            NoTokensError: the index keeps no tokens.
        """
        if not self.takes_words:
            raise NoTokensError
        with self._encoding:
            relation = self._relations.pop(description, None) or self._encoder.read_relation(description)
            self._relations[description] = relation
            while len(self._relations) > KEPT:
                del self._relations[next(iter(self._relations))]
        return relation

    @property
    def takes_words(self) -> bool:
        """Whether the index keeps the tokens that a relation in words is put to."""
        return self.index.snapshot.generation.tokens is not None

    def relation_types(self, item_a: str, item_b: str, similarity: Similarity) -> list[RelationScore]:
        """Every relation between different items, the likeliest link of these two first.

        Raises:
            UnknownItemError: there is no such item.
        """
        return self.index.relation_scores(item_a, item_b, similarity)

    def validity(self, item_a: str, item_b: str, relation_id: str) -> Verdict:
        """Whether a relation holds between two different items, and how surely.

        Raises:
            UnknownItemError, UnknownRelationError: there is no such item or relation.
            IntraRelationError: the relation is that of an item with itself, which was never learnt for two.
        """
        if self.index.relation(relation_id).intra:
            others = [relation.relation_id for relation in self.index.relations if not relation.intra]
            raise IntraRelationError(relation_id, others)
        return Verdict(self.index.validity(item_a, item_b, relation_id), THRESHOLD)

    def item(self, item_id: str) -> Item:
        """The item of this id.

        Raises:
            UnknownItemError: there is none.
        """
        return self.index.snapshot.get(item_id)

    def relation(self, relation_id: str) -> Relation:
        """The relation of this id.

        Raises:
            UnknownRelationError: there is none.
        """
        return self.index.relation(relation_id)
