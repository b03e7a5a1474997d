"""Validation during training: retrieval queries whose partner is a validation item.

Edges between two validation items are few, because most partners of an item lie in the training split. Queries from
training items for validation items are therefore added: early stopping then rests on thousands of queries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.console import say
from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.embeddings.encoding import EQUAL_SHARE, Encoding
from model.errors import InputError
from model.evaluation.metrics import retrieval_hits
from model.evaluation.sampling import (
    MIN_NEGATIVES,
    Queries,
    sample_available_queries,
    sample_training_queries,
)
from model.records import Split
from model.similarity import Similarity

from .batches import Part
from .part_inputs import PartInputs

CANDIDATES = 21
"""Number of candidates of a query, as in the evaluation: the true partner and 20 random negatives."""

MAX_QUERIES = 4_000
"""Maximum number of queries between validation items, and of queries from training items; a random sample if more."""

MAX_TRAINING_ITEMS = 1_000
"""Maximum number of training items whose queries are used, because they are encoded at each validation."""

TEXT_SHARES = (EQUAL_SHARE, 0.6, 0.7, 0.8, 0.9)
"""Weights of the text vector in the average view that are tried, preferred first; texts often say more."""


@dataclass(frozen=True)
class Validation:
    """Items and queries of the validation; `queries` refers to the items of `part` by position.

    The first items of `part` are the validation items, and its edges connect only these.
    """

    part: Part
    queries: Queries


def make_validation(prepared: Prepared, inputs: PartInputs, rng: np.random.Generator) -> Validation:
    """Read the validation items and draw the queries; all candidates of a query are of its domain.

    A shop with few validation items has fewer negatives than `CANDIDATES`, of which a warning tells.

    Raises:
        InputError: there are no edges between validation items, or too few of these items.
    """
    held_out = prepared.rows(Split.VALIDATION)
    across = [edge for edge in prepared.edges_across if edge.split == Split.VALIDATION]
    new = {prepared.items[row].item_id for row in held_out}
    known = sorted({edge.item_b if edge.item_a in new else edge.item_a for edge in across})
    if len(known) > MAX_TRAINING_ITEMS:
        known = sorted(rng.choice(known, MAX_TRAINING_ITEMS, replace=False).tolist())
    allowed = new.union(known)
    place = {item.item_id: row for row, item in enumerate(prepared.items)}
    rows = [*held_out, *(place[item_id] for item_id in known)]
    part = inputs.part(rows, Split.VALIDATION)
    domains = prepared.domain_of_relation
    queries = [
        sample_available_queries(own, CANDIDATES, MAX_QUERIES, rng) for own in part.edges.by_domain(domains)
    ]
    some = [edge for edge in across if edge.item_a in allowed and edge.item_b in allowed]
    if some:
        table = inputs.edge_table(some, rows)
        swap = table.a < len(held_out)  # the query item is the training item
        outwards = EdgeTable(
            np.where(swap, table.b, table.a), np.where(swap, table.a, table.b), table.relation
        )
        if len(outwards) > MAX_QUERIES:
            outwards = outwards.take(np.sort(rng.choice(len(outwards), MAX_QUERIES, replace=False)))
        for asked in outwards.by_domain(domains):
            own = part.edges.take(np.isin(domains[part.edges.relation], domains[asked.relation]))
            pool = np.unique(np.concatenate([own.a, own.b, asked.b]))
            queries.append(sample_training_queries(asked, pool, CANDIDATES, rng))
    drawn = Queries.joined(queries)
    _check_negatives(drawn, prepared)
    queried = set(domains[drawn.relation].tolist())
    for unasked in sorted(set(domains[1:].tolist()) - queried):
        say(
            f"Warning: {prepared.part(unasked).path} has too few validation items for queries, so early stopping "
            "ignores it. Run `rcml prepare` on it with a larger --validation-share, such as 0.2."
        )
    return Validation(part, drawn)


def _check_negatives(queries: Queries, prepared: Prepared) -> None:
    """Warn if a query has fewer negatives than usual, and say which share of validation items gives enough.

    Raises:
        InputError: there are no queries, because no item has `MIN_NEGATIVES` negatives.
    """
    negatives = (queries.candidates[:, 1:] >= 0).sum(axis=1)
    fewest = int(negatives.min()) if len(negatives) else 0
    if fewest >= CANDIDATES - 1:
        return
    domain = prepared.domain_of_relation[queries.relation[negatives.argmin()]] if len(negatives) else 0
    data = prepared.part(domain)
    held_out = len(data.rows(Split.VALIDATION))
    pictured = sum(bool(item.picture) for item in data.items)
    share = _rounded_up(held_out / pictured * (CANDIDATES - 1) / max(fewest, MIN_NEGATIVES - 1))
    remedy = f"Run `rcml prepare` with --validation-share {share:.2f}"
    if not fewest:
        raise InputError(
            f"{data.path} has {held_out} validation items, of which fewer than {MIN_NEGATIVES} can serve as "
            f"negatives of a query. {remedy}, or with more items."
        )
    say(
        f"Warning: some validation queries have only {fewest} negatives instead of {CANDIDATES - 1}, because "
        f"{data.path} has only {held_out} validation items. Hit@5 is then higher than among {CANDIDATES} "
        f"candidates. {remedy} for more."
    )


def _rounded_up(share: float) -> float:
    """Round a share up to a multiple of 0.05 that leaves most items for training."""
    return min(math.ceil(share * 20) / 20, 0.4)


def best_text_share(encoding: Encoding, queries: Queries, shares: Sequence[float]) -> tuple[float, float]:
    """Return the weight of the text vector with the best Hit@5 by AVG similarity, and this Hit@5."""
    hits = {
        share: float(retrieval_hits(replace(encoding, text_share=share), queries, Similarity.AVG).mean())
        for share in shares
    }
    best = max(hits, key=hits.__getitem__)  # the first of equals
    return best, hits[best]
