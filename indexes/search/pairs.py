"""Comparison of two items: the relations ranked by how well they fit, and whether a given relation holds.

Each item is a catalogue item, given by its ID, or a new item, given by its vectors. `Reader` passes its snapshot to
this module. Scores are cosines, and the calibration of the checkpoint turns them into probabilities.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from indexes.live.snapshot import Snapshot
from indexes.vectors.contract import cosines
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.validity import VALIDITY_THRESHOLD, PairVectors
from model.embeddings.encoding import Encoding
from model.embeddings.free_text import FreeTextRelation
from model.errors import InputError, IntraRelationError, NoPictureError, RcmlError
from model.records import Relation
from model.similarity import Similarity, View

from .retrieve import vector

PairItem = str | Encoding
"""ID of a catalogue item, or encoding of a new item; the encoding contains that item only."""


@dataclass(frozen=True, slots=True)
class RelationScore:
    """A relation, the cosine of two items under it, and its probability, given that some relation links the items."""

    relation: Relation
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict on whether a relation holds between two items: it holds if its probability reaches the threshold."""

    probability: float
    threshold: float = VALIDITY_THRESHOLD

    @property
    def valid(self) -> bool:
        """Whether the relation holds."""
        return self.probability >= self.threshold


@dataclass(frozen=True)
class PairScorer:
    """Scorer of pairs of items.

    The items are new or come from `snapshot`. `checkpoint` provides the validity head and the calibration.
    """

    snapshot: Snapshot
    checkpoint: Checkpoint

    def relation_scores(self, a: PairItem, b: PairItem, similarity: Similarity) -> list[RelationScore]:
        """Rank all relations except the intra-sample relation; see `Reader.relation_scores`."""
        known = self.snapshot.generation.relations
        positions = [place for place, one in enumerate(known) if not one.relation.intra]
        if not positions:
            return []
        views = zip((a, b), similarity.views, strict=True)
        vectors_a, vectors_b = (self._view(item, view, positions) for item, view in views)
        scores = np.concatenate(
            [cosines(vectors_a[row : row + 1], vectors_b[row]) for row in range(len(positions))]
        )
        probabilities = self.checkpoint.calibration.relation_probabilities(scores, similarity)
        found = [
            RelationScore(known[place].relation, score, probability)
            for place, score, probability in zip(
                positions, scores.tolist(), probabilities.tolist(), strict=True
            )
        ]
        return sorted(found, key=lambda one: (-one.probability, -one.score))

    def verdicts(self, claims: Sequence[tuple[PairItem, PairItem, str]]) -> list[Verdict | RcmlError]:
        """Judge many claims at once, each independently of the others; see `Reader.validities`."""
        sound: list[tuple[int, tuple[PairItem, PairItem, int]]] = []
        found: dict[int, Verdict | RcmlError] = {}
        for number, (a, b, relation_id) in enumerate(claims):
            try:
                sound.append((number, (a, b, self._check(a, b, relation_id))))
            except RcmlError as error:
                found[number] = error.with_traceback(None)  # it would refer to this frame: a cycle
        if sound:
            probabilities = self.probabilities([claim for _, claim in sound])
            for (number, _), probability in zip(sound, probabilities.tolist(), strict=True):
                found[number] = Verdict(probability)
        return [found[number] for number in range(len(claims))]

    def probabilities(self, claims: Sequence[tuple[PairItem, PairItem, int]]) -> Float32[ndarray, " claims"]:
        """Return the probabilities of many claims at once; a claim is two items and the position of a relation."""
        dim = self.snapshot.generation.vectors.dim
        # The axes are the view, the claim, the side (first or second item of the claim) and the vector component.
        # Vectors are read relation by relation, because they are stored that way.
        vectors = np.empty((2, len(claims), 2, dim), np.float32)
        of_relation: defaultdict[int, list[int]] = defaultdict(list)
        for number, (_, _, relation) in enumerate(claims):
            of_relation[relation].append(number)
        for relation, numbers in of_relation.items():
            rows: dict[tuple[int, int], int] = {}
            for number in numbers:
                for side, item in enumerate(claims[number][:2]):
                    if isinstance(item, Encoding):
                        vectors[:, number, side] = [
                            self._new(item, View.TEXT, relation),
                            self._new(item, View.IMAGE, relation),
                        ]
                    else:
                        rows[number, side] = self.snapshot.row(item)
            if rows:
                places = np.array([*rows]).T
                for view, found in zip((View.TEXT, View.IMAGE), vectors, strict=True):
                    found[places[0], places[1]] = self.snapshot.vectors(relation, view, [*rows.values()])
        (text_a, text_b), (image_a, image_b) = vectors.swapaxes(1, 2)
        relations = np.empty((len(claims), dim), np.float32)
        for number, (_, _, relation) in enumerate(claims):
            relations[number] = self._relation_vector(relation)
        pairs = PairVectors(text_a, image_a, text_b, image_b, relations)
        return self.checkpoint.calibration.validity_probability(self.checkpoint.validity.log_odds(pairs))

    def vectors(
        self, items: Sequence[PairItem], relation: int | FreeTextRelation, view: View
    ) -> Float32[ndarray, "items dim"]:
        """Return the vectors of `items` in a view under a relation, in the same order.

        A vector is zero if the item lacks the view, for example the image view of an item without a picture.
        """
        found = np.zeros((len(items), self.snapshot.generation.vectors.dim), np.float32)
        rows: dict[int, int] = {}
        for place, item in enumerate(items):
            if isinstance(item, Encoding):
                if isinstance(relation, FreeTextRelation):
                    found[place] = vector(item, relation, view)
                else:
                    found[place] = self._new(item, view, relation)
            else:
                row = self.snapshot.row(item)
                if view is not View.IMAGE or self.snapshot.pictured is None or self.snapshot.pictured[row]:
                    rows[place] = row
        if rows:
            found[[*rows]] = self.snapshot.vectors(relation, view, [*rows.values()])
        return found

    def _check(self, a: PairItem, b: PairItem, relation_id: str) -> int:
        """Check that a claim can be judged, and return the position of its relation.

        Raises:
            UnknownItemError, UnknownRelationError: no item or relation has this ID.
            IntraRelationError: the relation links an item to itself, so the network never learned it for two items.
        """
        known = self.snapshot.generation.relations
        position = self.snapshot.position(relation_id)
        if known[position].relation.intra:
            raise IntraRelationError(
                relation_id, [one.relation_id for one in known if not one.relation.intra]
            )
        for item in (a, b):
            if isinstance(item, str):
                self.snapshot.row(item)
        return position

    def _new(self, item: Encoding, view: View, relation: int) -> Float32[ndarray, " dim"]:
        """Return the vector of a new item; under an added relation, compute it from the tokens of the item."""
        free_text = self.snapshot.generation.relations[relation].free_text
        return vector(item, relation if free_text is None else free_text, view)

    def _relation_vector(self, relation: int) -> Float32[ndarray, " dim"]:
        """Return h_E, the vector of the relation itself."""
        free_text = self.snapshot.generation.relations[relation].free_text
        found: ndarray = self.checkpoint.relation_vectors[relation] if free_text is None else free_text.vector
        return found

    def _view(self, item: PairItem, view: View, positions: list[int]) -> Float32[ndarray, "relations dim"]:
        """Return the vectors of an item in a view, under each of the relations at `positions`.

        Raises:
            NoPictureError: the view is the image view, and the item has no picture.
            InputError: the view is the text view, and the new item has no text.
        """
        if isinstance(item, Encoding):
            vectors = np.stack([self._new(item, view, place) for place in positions])
            if view is not View.AVERAGE and not vectors.any():
                if view is View.IMAGE:
                    raise NoPictureError(None)
                raise InputError(
                    "The new item has no text. Choose a similarity that compares its picture, or AVG."
                )
            return vectors
        row = self.snapshot.row(item)
        self.snapshot.check_view(row, view)
        return np.concatenate([self.snapshot.vectors(place, view, [row]) for place in positions])
