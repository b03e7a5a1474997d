"""Prepared data: edges within and across the splits, the kept interactions, and data written by earlier versions."""

import json
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from model.data.prepared_data import Prepared
from model.records import Edge, Split
from tests.model.planted import edges_only_config, prepared_of, two_camps


@pytest.fixture(scope="module")
def camps(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_of(two_camps(tmp_path_factory.mktemp("camps")))


@pytest.fixture(scope="module")
def worn(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Return twelve items, of which all pairs are related; 4 items are held out for validation and 4 for test."""
    return prepared_of(edges_only_config(tmp_path_factory.mktemp("worn")))


@pytest.fixture(params=["camps", "worn"])
def prepared(request: pytest.FixtureRequest) -> Prepared:
    found: Prepared = request.getfixturevalue(request.param)
    return found


def splits_of(prepared: Prepared, edge: Edge) -> set[Split]:
    """Return the splits of the two items of an edge."""
    split = {item.item_id: split for item, split in zip(prepared.items, prepared.splits, strict=True)}
    return {split[edge.item_a], split[edge.item_b]}


def test_edges_connect_only_items_of_one_split(prepared: Prepared) -> None:
    assert {edge.split for edge in prepared.edges} >= {Split.TRAIN, Split.TEST}
    for edge in prepared.edges:
        assert splits_of(prepared, edge) == {edge.split}
        assert edge.item_a < edge.item_b


def test_edges_across_connect_a_training_item_with_an_item_of_their_split(prepared: Prepared) -> None:
    assert {edge.split for edge in prepared.edges_across} == {Split.VALIDATION, Split.TEST}
    for edge in prepared.edges_across:
        assert splits_of(prepared, edge) == {Split.TRAIN, edge.split}
        assert edge.item_a < edge.item_b


def test_every_ready_made_edge_is_in_one_file_or_dropped(worn: Prepared) -> None:
    ids = {split: [worn.items[row].item_id for row in worn.rows(split)] for split in Split}
    assert [len(ids[split]) for split in Split] == [4, 4, 4]
    pairs = [(edge.item_a, edge.item_b) for edge in worn.edges]
    assert sorted(pairs) == sorted(pair for split in Split for pair in combinations(sorted(ids[split]), 2))
    across = {(edge.item_a, edge.item_b) for edge in worn.edges_across}
    held_out = ids[Split.VALIDATION] + ids[Split.TEST]
    assert across == {(min(a, b), max(a, b)) for a in ids[Split.TRAIN] for b in held_out}
    assert len(worn.edges_across) == 4 * 8


def test_split_changes_no_derived_edge(camps: Prepared, tmp_path: Path) -> None:
    config = two_camps(tmp_path).model_copy(update={"test_share": 0.0, "validation_share": 0.0})
    every = prepared_of(config)
    report = json.loads((camps.path / "report.json").read_text())

    def values(*edges: Edge) -> set[tuple[str, str, str, int, float]]:
        return {(edge.item_a, edge.item_b, edge.relation_id, edge.support, edge.npmi) for edge in edges}

    assert every.edges_across == ()
    assert values(*camps.edges, *camps.edges_across) <= values(*every.edges)
    assert not values(*camps.edges) & values(*camps.edges_across)
    dropped = len(every.edges) - len(camps.edges) - len(camps.edges_across)
    assert (report["edges_across_kept"], report["edges_across_dropped"]) == (len(camps.edges_across), dropped)
    assert dropped > 0


def test_report_counts_kept_and_dropped_edges_across_splits(worn: Prepared) -> None:
    report = json.loads((worn.path / "report.json").read_text())
    assert (report["edges_across_kept"], report["edges_across_dropped"]) == (4 * 8, 4 * 4)
    assert report["log"]["edges_across_splits"] == 4 * 8 + 4 * 4
    readable = (worn.path / "report.md").read_text()
    assert "32 edges between a training item and a validation or test item are kept" in readable
    assert "16 edges between a validation item and a test item were dropped" in readable
    assert worn.manifest.counts["edges_across"] == 32


def test_a_repeated_ready_made_edge_is_kept_and_counted_once(tmp_path: Path) -> None:
    pairs = [(a, b) for a, b in combinations("abcdefghijkl", 2)]
    prepared = prepared_of(edges_only_config(tmp_path, pairs + [(b, a) for a, b in pairs]))
    report = json.loads((prepared.path / "report.json").read_text())
    assert (len(prepared.edges), len(prepared.edges_across)) == (3 * 6, 32)
    assert report["log"] == {"edges_across_splits": 48}


def test_interactions_are_those_of_the_log_without_its_user_ids(camps: Prepared, tmp_path: Path) -> None:
    log = pl.read_ndjson(two_camps(tmp_path).interactions[0])
    taken = [
        (user, tuple(sorted(items))) for user, items in log.group_by("user_id").agg("item_id").iter_rows()
    ]
    kept = camps.interactions()
    assert kept is not None
    assert kept.schema == {"user": pl.Int64, "item": pl.Int64, "relation_id": pl.String}
    found = [
        tuple(camps.items[row].item_id for row in rows)
        for _, rows in kept.group_by("user", maintain_order=True).agg("item").iter_rows()
    ]
    assert kept["user"].unique().to_list() == list(range(40))
    assert found == [items for _, items in sorted(taken)]
    assert kept.rows() == sorted(kept.rows())


def test_interactions_name_the_relation_of_the_cluster_of_each_user(camps: Prepared) -> None:
    kept = camps.interactions()
    assert kept is not None
    relations = {(camps.items[item].item_id[0], relation_id) for _, item, relation_id in kept.iter_rows()}
    assert relations == {("b", "books"), ("p", "pans")}
    for edge in camps.edges + camps.edges_across:
        rows = [row for row, item in enumerate(camps.items) if item.item_id in (edge.item_a, edge.item_b)]
        own = kept.filter(pl.col("item").is_in(rows), pl.col("relation_id") == edge.relation_id)
        assert (own["user"].value_counts()["count"] == 2).sum() == edge.support


def test_counts_the_users_of_each_relation(camps: Prepared) -> None:
    log = camps.interactions()
    assert log is not None
    found = camps.users()
    assert set(found) == {"books", "pans"}
    for relation, users in found.items():
        assert users == log.filter(pl.col("relation_id") == relation)["user"].n_unique() > 1


def test_ready_made_edges_have_no_interactions(worn: Prepared) -> None:
    assert worn.interactions() is None
    assert worn.users() == {}
    assert not (worn.path / "log.parquet").exists()


def test_opens_data_of_earlier_versions(tmp_path: Path) -> None:
    config = two_camps(tmp_path)
    new = prepared_of(config)
    added = ("edges_across.parquet", "log.parquet")
    for name in added:
        (config.out / name).unlink()
    files = {name: record for name, record in new.manifest.files.items() if name not in added}
    counts = {name: count for name, count in new.manifest.counts.items() if name != "edges_across"}
    old = new.manifest.model_copy(update={"files": files, "counts": counts})
    (config.out / "manifest.json").write_text(old.text, encoding="utf-8")
    opened = Prepared.open(config.out)
    assert (opened.edges, opened.items, opened.relations) == (new.edges, new.items, new.relations)
    assert opened.edges_across == ()
    assert opened.interactions() is None
