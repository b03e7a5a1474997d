"""The counts of the report agree with those made by hand."""

from .shop import counted, graph


def test_relations_are_counted_by_split_with_their_items_and_users() -> None:
    read, cook = counted().relations
    assert (read.relation, read.users, read.items, read.pairs.train, read.pairs.test) == ("read", 2, 3, 3, 0)
    assert (cook.relation, cook.users, cook.items, cook.pairs.train, cook.pairs.test) == ("cook", 1, 4, 1, 1)


def test_pairs_are_counted_once_for_all_their_relations() -> None:
    report = counted()
    assert (report.pairs, report.pairs_of_one_relation) == (4, 3)
    assert report.trained_items == 3
    assert report.pairs_across.model_dump() == {"train": 0, "validation": 0, "test": 1}
    assert (report.edges_across_kept, report.edges_across_dropped) == (1, 2)


def test_filters_say_how_many_interactions_each_step_leaves() -> None:
    steps = counted().filters
    assert [step.interactions for step in steps] == [20, 15, 11, 10, 9, 7]
    assert "--min-rating" in steps[1].step
    assert (steps[-1].users, steps[-1].items) == (3, 5)


def test_ready_made_edges_have_no_filters_and_no_users() -> None:
    report = counted(ready_made=True)
    assert report.filters == ()
    assert [row.users for row in report.relations] == [None, None]
    assert [pair.support for pair in report.relations[0].samples] == [None, None, None]
    assert [one.name for one in report.distributions] == ["pairs per item"]


def test_relation_without_edges_has_no_pairs() -> None:
    edges = graph().edges
    read, cook = counted(edges=edges.filter(edges["relation_id"] == "cook")).relations
    assert (read.relation, read.items, read.pairs.train, read.samples) == ("read", 0, 0, ())
    assert (cook.relation, cook.items, cook.pairs.train) == ("cook", 4, 1)
