"""The relations over HTTP."""

from starlette.testclient import TestClient

from tests.indexes.fakes import RELATIONS


def test_all_relations_are_listed_with_the_pairs_known_under_each(client: TestClient) -> None:
    listed = client.get("/relations").json()["relations"]
    assert [relation["relation_id"] for relation in listed] == [
        relation.relation_id for relation in RELATIONS
    ]
    assert [relation["description"] for relation in listed] == [
        relation.description for relation in RELATIONS
    ]
    assert [relation["intra"] for relation in listed] == [True, False, False, False]
    assert [relation["pairs"] for relation in listed] == [None, 1, 0, 2]
