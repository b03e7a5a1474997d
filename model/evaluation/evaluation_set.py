"""Questions of an evaluation, drawn once and put to every system: queries, edges and claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from model.config import EvaluateConfig
from model.data.edge_table import EdgeTable
from model.data.prepared_data import Prepared
from model.errors import InputError
from model.records import Edge, Split

from .figures import Catalogue, Negatives
from .full_catalogue import CatalogueQueries
from .sampling import (
    LabelledPairs,
    Queries,
    sample_hard_queries,
    sample_labelled_pairs,
    sample_queries,
    sample_training_queries,
)
from .sensitivity import RelationPairs


@dataclass(frozen=True)
class EvaluationSet:
    """Questions of an evaluation.

    Items are identified by their position: first the test items, then the training items that are query items. `rows`
    maps positions to the items of the prepared data. Relations are identified by their position among all relations,
    and `known` contains the positions of the inter-sample relations.

    `queries`, `edges` and `claims` are those of the paper: all their items are test items. `retrieval` and `catalogues`
    contain the queries of each kind; a kind without queries is absent. `asked` is the number of queries before those
    with too few negatives were left out. `popularity` is the number of users of each
    item, or of its partners if there is no log.
    """

    texts: list[str]
    pictures: list[Path]
    training_texts: list[str]
    training_pictures: list[Path]
    rows: Int[ndarray, " positions"]
    popularity: Int[ndarray, " positions"]
    edges: EdgeTable
    queries: Queries
    claims: LabelledPairs
    known: Int[ndarray, " known"]
    retrieval: dict[Negatives, Queries]
    asked: dict[Negatives, int]
    catalogues: dict[Catalogue, CatalogueQueries]
    pairs: RelationPairs

    @property
    def catalogue(self) -> Int[ndarray, " candidates"]:
        """Positions of the test items, which are the candidates of the full catalogue."""
        return np.arange(len(self.texts))

    @property
    def truth(self) -> Int[ndarray, " edges"]:
        """Position in `known` of the relation of each edge."""
        return np.searchsorted(self.known, self.edges.relation)


def make_evaluation_set(prepared: Prepared, config: EvaluateConfig) -> EvaluationSet:
    """Draw the evaluation set from the test split.

    Raises:
        InputError: there are no test pairs, or too few test items.
    """
    rng = np.random.default_rng(config.seed)
    test = prepared.rows(Split.TEST)
    found = [edge for edge in prepared.edges if edge.split == Split.TEST]
    if not found:
        raise InputError(
            f"{prepared.path} has no test pairs. Run `rcml prepare` with more data or a larger --test-share."
        )
    item_rows = {item.item_id: row for row, item in enumerate(prepared.items)}
    relation_rows = {relation.relation_id: row for row, relation in enumerate(prepared.relations)}
    places = {row: place for place, row in enumerate(test)}
    edges = _placed(EdgeTable.of(found, item_rows, relation_rows), places)
    known = np.array([row for row, relation in enumerate(prepared.relations) if not relation.intra])
    # The paper's questions are drawn first, so that they are the same whatever else is asked.
    queries = sample_queries(edges, config.candidates, config.max_queries, rng)
    claims = sample_labelled_pairs(edges, known, config.max_queries, rng)

    across = _sample_items(_from_training(prepared, item_rows, relation_rows), config.max_queries, rng)
    training = np.unique(across.a).tolist()
    places |= {row: len(test) + place for place, row in enumerate(training)}
    across = _placed(across, places)
    pool = np.unique(np.concatenate([edges.a, edges.b, across.b]))
    retrieval: dict[Negatives, Queries] = {
        "random": queries,
        "hard": sample_hard_queries(queries, edges, rng),
        "training": sample_training_queries(across, pool, config.candidates, rng),
    }
    everything = np.arange(len(test))
    catalogues: dict[Catalogue, CatalogueQueries] = {
        "new": CatalogueQueries.of(edges.both_ways(), everything, config.max_queries, rng),
        "training": CatalogueQueries.of(across, everything, config.max_queries, rng),
    }
    compared = everything
    if len(compared) * len(known) > config.max_queries:
        compared = np.sort(rng.choice(compared, max(1, config.max_queries // len(known)), replace=False))
    rows = np.array([*test, *training], dtype=np.int64)
    return EvaluationSet(
        texts=[prepared.items[row].text for row in test],
        pictures=[prepared.path / prepared.items[row].picture for row in test],
        training_texts=[prepared.items[row].text for row in training],
        training_pictures=[prepared.path / prepared.items[row].picture for row in training],
        rows=rows,
        popularity=_popularity(prepared, item_rows)[rows],
        edges=edges,
        queries=queries,
        claims=claims,
        known=known,
        retrieval={kind: asked for kind, asked in retrieval.items() if len(asked.item)},
        asked={"random": len(queries.item), "hard": len(queries.item), "training": len(across)},
        catalogues={kind: asked for kind, asked in catalogues.items() if len(asked)},
        pairs=RelationPairs.of(edges, compared, known),
    )


def _placed(edges: EdgeTable, places: dict[int, int]) -> EdgeTable:
    """Replace rows of prepared data with positions of the evaluation set."""
    a, b = (np.array([places[row] for row in side.tolist()], dtype=np.int64) for side in (edges.a, edges.b))
    return EdgeTable(a, b, edges.relation)


def _from_training(prepared: Prepared, item_rows: dict[str, int], relation_rows: dict[str, int]) -> EdgeTable:
    """Return the edges between a training item (`a`) and a test item (`b`)."""
    found: Sequence[Edge] = [edge for edge in prepared.edges_across if edge.split == Split.TEST]
    edges = EdgeTable.of(found, item_rows, relation_rows)
    turned = np.array([prepared.splits[row] == Split.TEST for row in edges.a.tolist()], dtype=bool)
    return EdgeTable(np.where(turned, edges.b, edges.a), np.where(turned, edges.a, edges.b), edges.relation)


def _sample_items(edges: EdgeTable, most: int, rng: np.random.Generator) -> EdgeTable:
    """Keep all edges of a random sample of query items (`a`) that have at most `most` edges together.

    This also limits the number of training items to encode. At least one item is kept.
    """
    if len(edges) <= most:
        return edges
    items, counts = np.unique(edges.a, return_counts=True)
    order = rng.permutation(len(items))
    kept = max(1, int((np.cumsum(counts[order]) <= most).sum()))
    return edges.take(np.flatnonzero(np.isin(edges.a, items[order[:kept]])))


def _popularity(prepared: Prepared, item_rows: dict[str, int]) -> Int[ndarray, " items"]:
    log = prepared.interactions()
    if log is not None:
        return np.bincount(log["item"].to_numpy(), minlength=len(prepared.items))
    pairs = {(edge.item_a, edge.item_b) for edge in (*prepared.edges, *prepared.edges_across)}
    ends = [item_rows[item] for pair in pairs for item in pair]
    return np.bincount(np.array(ends, dtype=np.int64), minlength=len(prepared.items))
