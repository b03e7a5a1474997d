"""Three questions about the demo whose answers differ by relation, shown with their answers when the demo is served.

The item is chosen by how much its answers differ: its best partner under one relation is improbable under another, and
the other way round.
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from indexes.reader import Reader
from indexes.search.pairs import Verdict
from model.records import Item, Relation
from model.similarity import Similarity

CONSIDERED = 24
"""Number of items among which one is chosen, the first of the catalogue."""

SHOWN = 3
"""Number of results that a question asks for."""


@dataclass(frozen=True)
class Contrast:
    """Item with different partners under two relations; `margin` is how much less probable each is under the other."""

    item: Item
    relations: tuple[Relation, Relation]
    partners: tuple[list[Item], list[Item]]
    margin: float


def contrasts(reader: Reader) -> Iterator[Contrast]:
    """Yield the contrast of every considered item under each pair of relations that share no result."""
    relations = [relation for relation in reader.relations if not relation.intra]
    for _, item in reader.snapshot.page(0, CONSIDERED):
        found = [
            [hit.item for hit in reader.neighbours(item.item_id, relation.relation_id, Similarity.AVG, SHOWN)]
            for relation in relations
        ]
        claims = [
            (item.item_id, items[0].item_id, relation.relation_id)
            for items in found
            for relation in relations
        ]
        verdicts = [one.probability if isinstance(one, Verdict) else 0.0 for one in reader.validities(claims)]
        for first, second in combinations(range(len(relations)), 2):
            if {one.item_id for one in found[first]} & {one.item_id for one in found[second]}:
                continue
            margins = [
                verdicts[own * len(relations) + own] - verdicts[own * len(relations) + other]
                for own, other in ((first, second), (second, first))
            ]
            pair = relations[first], relations[second]
            yield Contrast(item, pair, (found[first], found[second]), min(margins))


def lines(reader: Reader, url: str) -> list[str]:
    """Return the questions as commands to paste, each with its answer; no lines if no two relations differ."""
    contrast = max(contrasts(reader), key=lambda one: one.margin, default=None)
    if contrast is None:
        return []
    item, (first, second), (partner, *_) = contrast.item, contrast.relations, contrast.partners[0]
    claims = [(item.item_id, partner.item_id, relation.relation_id) for relation in contrast.relations]
    likely = [one.probability for one in reader.validities(claims) if isinstance(one, Verdict)]
    both = [dict(zip(("item_a", "item_b", "relation"), claim, strict=True)) for claim in claims]
    return [
        "Three questions worth asking. Paste them into another terminal:",
        f'1. What goes with "{item.title}" for {customers(first)}?',
        f"   {_retrieve(url, item, first)}",
        f"   Answer: {_titles(contrast.partners[0])}",
        f"2. And for {customers(second)}? The item is the same, the answers are not.",
        f"   {_retrieve(url, item, second)}",
        f"   Answer: {_titles(contrast.partners[1])}",
        f'3. How likely is it that they buy "{item.title}" and "{partner.title}" together?',
        f"   {_curl(f'{url}/validity/batch', {'questions': both})}",
        f"   Answer: {likely[0]:.0%} for the first group, {likely[1]:.0%} for the second",
    ]


def customers(relation: Relation) -> str:
    """Return the customers of a relation: the beginning of its description, such as "people who primarily buy Pets"."""
    return relation.description.removeprefix("Co-purchased by ").partition(", with ")[0].rstrip(".")


def _titles(items: list[Item]) -> str:
    return "; ".join(item.title for item in items)


def _retrieve(url: str, item: Item, relation: Relation) -> str:
    body = {"item_id": item.item_id, "relation": relation.relation_id, "k": SHOWN, "fields": ["title"]}
    return _curl(f"{url}/retrieve", body)


def _curl(url: str, body: dict[str, object]) -> str:
    return f"curl -s {url} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
