"""Examples of the answers of a network: a few queries and their attention under two relations, and some vectors."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int
from numpy import ndarray
from PIL import Image

from model.data.pictures.images import load_picture
from model.data.prepared_data import Prepared
from model.embeddings.attention_map import Attention
from model.embeddings.encoder_protocol import ItemEncoder
from model.embeddings.encoding import average
from model.errors import InputError
from model.evaluation.evaluation_set import EvaluationSet
from model.evaluation.scoring import NetworkScorer
from model.records import Item

CASES = 10
"""Number of queries shown."""

ATTENDED = 4
"""Number of these queries whose attention is shown."""

BEST = 3
"""Number of best candidates shown for each query and relation."""

MAX_SHARED = 0.5
"""Jaccard overlap below which the partners under two relations count as different."""

MAX_MAPPED = 400
"""Maximum number of items on a map."""

MAX_GROUPS = 8
"""Maximum number of categories that have a colour of their own."""

OTHER = "other"


@dataclass(frozen=True)
class ShownItem:
    """Item as it is shown; `picture` is None if the item has none."""

    title: str
    picture: Path | None

    @classmethod
    def of(cls, item: Item, folder: Path) -> "ShownItem":
        """Take what is shown from an item whose picture is in `folder`."""
        return cls(item.title or item.text, folder / item.picture if item.picture else None)


@dataclass(frozen=True)
class Answer:
    """Best candidates under one relation, the best first.

    `true[i]` says whether `best[i]` is a true partner, and `partners` is the number of all true partners.
    """

    relation_id: str
    description: str
    best: tuple[ShownItem, ...]
    true: tuple[bool, ...]
    partners: int


@dataclass(frozen=True)
class Case:
    """Query item, and its answers under two relations."""

    item: ShownItem
    answers: tuple[Answer, Answer]


@dataclass(frozen=True)
class AttentionHalf:
    """Attention of one relation over an item."""

    relation_id: str
    description: str
    attention: Attention


@dataclass(frozen=True)
class AttendedItem:
    """Item with the text that the network reads, and the attention of two relations over it."""

    item: ShownItem
    text: str
    halves: tuple[AttentionHalf, AttentionHalf]


@dataclass(frozen=True)
class MappedItems:
    """Vectors (AVG) of some items under one relation, and under the intra-sample relation.

    `group` is the first category of each item, or `OTHER` if it is not among the `MAX_GROUPS` most frequent ones.
    """

    relation_id: str
    items: tuple[ShownItem, ...]
    group: tuple[str, ...]
    unconditioned: Float32[ndarray, "items dim"]
    conditioned: Float32[ndarray, "items dim"]


@dataclass(frozen=True)
class Examples:
    """Examples of the answers of one network."""

    cases: tuple[Case, ...]
    mapped: MappedItems
    attended: tuple[AttendedItem, ...] = ()

    @classmethod
    def of(
        cls,
        scorer: NetworkScorer,
        questions: EvaluationSet,
        prepared: Prepared,
        seed: int,
        encoder: ItemEncoder | None = None,
    ) -> "Examples":
        """Draw the examples at random with `seed`; how good the answers are has no influence.

        `encoder` computes the attention over the first items drawn. It is None if the attention does not depend on the
        relation.
        """
        rng = np.random.default_rng(seed)
        drawn = _draw(questions, rng)
        return cls(
            tuple(
                Case(
                    ShownItem.of(prepared.items[questions.rows[item]], prepared.path),
                    (
                        _answer(scorer, questions, prepared, item, first),
                        _answer(scorer, questions, prepared, item, second),
                    ),
                )
                for item, first, second in drawn
            ),
            _mapped(scorer, questions, prepared, rng),
            ()
            if encoder is None
            else tuple(
                _attended(encoder, prepared, int(questions.rows[item]), (first, second))
                for item, first, second in drawn[:ATTENDED]
            ),
        )


def _draw(questions: EvaluationSet, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Draw items that have partners under two relations, different ones if possible; each item occurs once.

    The numbers are the positions of the item and of the two relations.
    """
    pairs = questions.pairs
    found = pairs.related & (pairs.truth < MAX_SHARED)
    drawn = rng.permutation(np.argwhere(found if found.any() else pairs.related))
    chosen = {int(row): int(pair) for row, pair in drawn[::-1]}  # the first pair drawn of each item wins
    order = list(dict.fromkeys(int(row) for row, _ in drawn))[:CASES]
    return [
        (
            int(pairs.items[row]),
            int(pairs.relations[pairs.first[chosen[row]]]),
            int(pairs.relations[pairs.second[chosen[row]]]),
        )
        for row in order
    ]


def _answer(
    scorer: NetworkScorer, questions: EvaluationSet, prepared: Prepared, item: int, relation: int
) -> Answer:
    """Rank all test items but the query item."""
    candidates = questions.catalogue
    scores = np.array(scorer.scores(np.array([item]), relation, candidates))[0]
    scores[item] = -np.inf
    best = np.argsort(-scores, kind="stable")[: min(BEST, len(candidates) - 1)].tolist()
    edges = questions.edges.both_ways()
    partners = set(edges.b[(edges.a == item) & (edges.relation == relation)].tolist())
    return Answer(
        prepared.relations[relation].relation_id,
        prepared.relations[relation].description,
        tuple(ShownItem.of(prepared.items[questions.rows[place]], prepared.path) for place in best),
        tuple(place in partners for place in best),
        len(partners),
    )


def _attended(encoder: ItemEncoder, prepared: Prepared, row: int, relations: tuple[int, int]) -> AttendedItem:
    """Compute the attention of two relations over the item at `row` of the prepared data."""
    item = prepared.items[row]
    shown = ShownItem.of(item, prepared.path)
    picture = None if shown.picture is None else load_picture(shown.picture)
    first, second = (
        AttentionHalf(
            one.relation_id, one.description, _explained(encoder, item.text, picture, one.relation_id)
        )
        for one in (prepared.relations[relation] for relation in relations)
    )
    return AttendedItem(shown, item.text, (first, second))


def _explained(encoder: ItemEncoder, text: str, picture: Image.Image | None, relation: str) -> Attention:
    """Compute the attention; without the patches if the tower does not tell where they are."""
    try:
        return encoder.explain(text, picture, relation)
    except InputError:
        if picture is None:
            raise
        return encoder.explain(text, None, relation)


def _mapped(
    scorer: NetworkScorer, questions: EvaluationSet, prepared: Prepared, rng: np.random.Generator
) -> MappedItems:
    """Draw test items, and take their vectors under the relation with the most test edges."""
    places = questions.catalogue
    if len(places) > MAX_MAPPED:
        places = np.sort(rng.choice(places, MAX_MAPPED, replace=False))
    relation = int(np.bincount(questions.edges.relation).argmax())
    intra = next(row for row, one in enumerate(prepared.relations) if one.intra)
    items = [prepared.items[row] for row in questions.rows[places]]
    first = [item.categories[0] if item.categories else OTHER for item in items]
    frequent = {name for name, _ in Counter(first).most_common(MAX_GROUPS)}
    return MappedItems(
        relation_id=prepared.relations[relation].relation_id,
        items=tuple(ShownItem.of(item, prepared.path) for item in items),
        group=tuple(name if name in frequent else OTHER for name in first),
        unconditioned=_vectors(scorer, places, intra),
        conditioned=_vectors(scorer, places, relation),
    )


def _vectors(
    scorer: NetworkScorer, places: Int[ndarray, " items"], relation: int
) -> Float32[ndarray, "items dim"]:
    own = scorer.catalogue
    return average(own.text[places, relation], own.image[places, relation], own.text_share)
