"""Validation during training: retrieval queries whose partner is a validation item.

Edges between two validation items are few, because most partners of an item lie in the training split. Queries from
training items for validation items are therefore added: early stopping then rests on thousands of queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.embeddings.encoding import EQUAL_SHARE, Encoding
from model.evaluation.metrics import retrieval_hits
from model.evaluation.sampling import Queries, sample_queries, sample_training_queries
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
    """Read the validation items and draw the queries.

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
    queries = [sample_queries(part.edges, CANDIDATES, MAX_QUERIES, rng)]
    some = [edge for edge in across if edge.item_a in allowed and edge.item_b in allowed]
    if some:
        table = inputs.edge_table(some, rows)
        swap = table.a < len(held_out)  # the query item is the training item
        outwards = EdgeTable(
            np.where(swap, table.b, table.a), np.where(swap, table.a, table.b), table.relation
        )
        if len(outwards) > MAX_QUERIES:
            outwards = outwards.take(np.sort(rng.choice(len(outwards), MAX_QUERIES, replace=False)))
        pool = np.unique(np.concatenate([part.edges.a, part.edges.b, outwards.b]))
        queries.append(sample_training_queries(outwards, pool, CANDIDATES, rng))
    return Validation(part, Queries.joined(queries))


def best_text_share(encoding: Encoding, queries: Queries, shares: Sequence[float]) -> tuple[float, float]:
    """Return the weight of the text vector with the best Hit@5 by AVG similarity, and this Hit@5."""
    hits = {
        share: float(retrieval_hits(replace(encoding, text_share=share), queries, Similarity.AVG).mean())
        for share in shares
    }
    best = max(hits, key=hits.__getitem__)  # the first of equals
    return best, hits[best]
