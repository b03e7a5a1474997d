"""Several domains as one: IDs that clash are kept apart, and everything else is the union."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from model.data.edge_table import EdgeTable
from model.data.joined_data import JoinedData, open_prepared
from model.data.prepare_config import PrepareConfig
from model.data.prepared_data import Prepared
from model.errors import InputError
from model.records import INTRA_RELATION
from tests.model.planted import prepared_of, write_pictured_items, write_rows


def domain(folder: Path, items: Sequence[str], texts: Mapping[str, str], **options: Any) -> Prepared:
    """Prepare items that are all related under each relation, all of them in training."""
    return prepared_of(
        PrepareConfig(
            items=write_pictured_items(folder, {item: ["Things"] for item in items}),
            edges=write_rows(
                folder / "edges.jsonl",
                (
                    {"item_a": a, "item_b": b, "relation": relation}
                    for a, b in combinations(items, 2)
                    for relation in texts
                ),
            ),
            relation_texts=write_rows(
                folder / "texts.jsonl", ({"relation": r, "description": text} for r, text in texts.items())
            ),
            out=folder / "prepared",
            **{"validation_share": 0.0, "test_share": 0.0, **options},
        )
    )


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> JoinedData:
    folder = tmp_path_factory.mktemp("domains")
    toys = domain(folder / "a", ["1", "2", "x"], {"worn": "Given together.", "gift": "Gifts."}, domain="toys")
    books = domain(folder / "b", ["2", "3", "4"], {"worn": "Read together."}, domain="books")
    found = open_prepared([toys.path, books.path])
    assert isinstance(found, JoinedData)
    return found


def test_only_ids_that_clash_get_the_name_of_their_domain(joined: JoinedData) -> None:
    assert [item.item_id for item in joined.items] == ["1", "toys:2", "x", "books:2", "3", "4"]
    assert [relation.relation_id for relation in joined.relations] == [
        INTRA_RELATION.relation_id, "toys:worn", "gift", "books:worn",
    ]  # fmt: skip
    assert [relation.description for relation in joined.relations[1:]] == [
        "Given together.", "Gifts.", "Read together.",
    ]  # fmt: skip


def test_edges_stay_within_their_domain_and_in_order(joined: JoinedData) -> None:
    assert {(edge.item_a, edge.item_b, edge.relation_id) for edge in joined.edges} == {
        ("1", "toys:2", "toys:worn"), ("1", "x", "toys:worn"), ("toys:2", "x", "toys:worn"),
        ("1", "toys:2", "gift"), ("1", "x", "gift"), ("toys:2", "x", "gift"),
        ("3", "books:2", "books:worn"), ("4", "books:2", "books:worn"), ("3", "4", "books:worn"),
    }  # fmt: skip


def test_pictures_are_found_from_the_joined_data(joined: JoinedData) -> None:
    shades = [(joined.path / item.picture).read_bytes() for item in joined.items]
    own = [(part.path / item.picture).read_bytes() for part in joined.parts for item in part.items]
    assert shades == own


def test_parents_are_the_digests_of_all_domains(joined: JoinedData) -> None:
    first, second = (part.manifest.digest for part in joined.parts)
    assert joined.digests == {"prepared": first, "prepared-2": second}
    turned = open_prepared([joined.parts[1].path, joined.parts[0].path])
    assert len({joined.manifest.digest, turned.manifest.digest, first, second}) == 4


def test_edges_are_divided_by_the_domain_of_their_relation(joined: JoinedData) -> None:
    assert joined.domain_of_relation.tolist() == [-1, 0, 0, 1]
    rows = {item.item_id: row for row, item in enumerate(joined.items)}
    relations = {relation.relation_id: row for row, relation in enumerate(joined.relations)}
    parts = EdgeTable.of(joined.edges, rows, relations).by_domain(joined.domain_of_relation)
    assert [sorted(set(part.relation.tolist())) for part in parts] == [[1, 2], [3]]
    assert [sorted({*part.a.tolist(), *part.b.tolist()}) for part in parts] == [[0, 1, 2], [3, 4, 5]]


def test_one_folder_is_opened_as_it_is(joined: JoinedData) -> None:
    assert open_prepared([joined.parts[0].path]) == joined.parts[0]


def test_the_same_folder_twice_is_refused(joined: JoinedData) -> None:
    path = joined.parts[0].path
    with pytest.raises(InputError, match=r"have the same content.*Give each domain once"):
        open_prepared([path, path])


def test_domains_without_a_name_are_named_after_their_folders(tmp_path: Path) -> None:
    one = domain(tmp_path / "one", "abc", {"worn": "Worn."})
    other = domain(tmp_path / "other", "abc", {"worn": "Worn by others."})
    found = open_prepared([one.path, other.path])
    assert isinstance(found, JoinedData)
    assert found.names == ("prepared-1", "prepared-2")  # both folders are called "prepared"
    assert found.items[3].item_id == "prepared-2:a"


def test_a_domain_without_pictures_is_refused_by_its_folder(joined: JoinedData, tmp_path: Path) -> None:
    bare = domain(tmp_path, ["7", "8", "9"], {"sewn": "Sewn together."})
    bare = replace(bare, items=tuple(replace(item, picture="") for item in bare.items))
    joined.require_pictures()
    with pytest.raises(InputError, match=rf"^{bare.path} has no item with a picture"):
        JoinedData.of([joined.parts[0], bare]).require_pictures()
