"""Relations of an index with what people want to know of each: its users, its pairs, and examples of pairs."""

from collections import defaultdict
from collections.abc import Sequence

from indexes.storage.relation_table import IndexedRelation, SamplePair
from model.data.prepared_data import Prepared
from model.records import Edge, Relation

SAMPLE_PAIRS = 3
"""Number of pairs that are stored as examples of a relation."""


def indexed_relations(relations: Sequence[Relation], prepared: Prepared) -> list[IndexedRelation]:
    """Return the relations of a checkpoint, each with its numbers of users, pairs and paired items, and examples."""
    edges: defaultdict[str, list[Edge]] = defaultdict(list)
    for edge in prepared.edges:
        edges[edge.relation_id].append(edge)
    users = prepared.users()
    return [
        IndexedRelation(relation, None)
        if relation.intra
        else IndexedRelation(
            relation,
            len(own),
            paired_items=len({end for edge in own for end in (edge.item_a, edge.item_b)}),
            users=users.get(relation.relation_id),
            sample_pairs=_sample_pairs(own),
        )
        for relation in relations
        for own in [edges[relation.relation_id]]
    ]


def _sample_pairs(edges: Sequence[Edge]) -> tuple[SamplePair, ...]:
    """Return the middle pair of each third of the edges, strongest first, so that they show strong and weak pairs."""
    ordered = sorted(edges, key=lambda edge: (-edge.npmi, -edge.support, edge.item_a, edge.item_b))
    middles = sorted({(2 * part + 1) * len(ordered) // (2 * SAMPLE_PAIRS) for part in range(SAMPLE_PAIRS)})
    chosen = [ordered[middle] for middle in middles] if ordered else []
    return tuple(SamplePair(edge.item_a, edge.item_b, edge.support) for edge in chosen)
