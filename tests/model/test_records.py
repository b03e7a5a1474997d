"""Names of relations that people read."""

import pytest

from model.records import INTRA_RELATION, Relation


@pytest.mark.parametrize(
    ("relation", "name"),
    [
        (Relation("office-music", "Bought together.", name="Office, then Music"), "Office, then Music"),
        (Relation("office-music", "Bought together."), "Office music"),
        (Relation("one_colour", "Of one colour."), "One colour"),
        (Relation("worn together / office", "Worn together."), "Worn together / office"),
        (Relation("--", "Nothing but hyphens."), "--"),
        (INTRA_RELATION, "Look-alikes"),
    ],
)
def test_relation_has_a_name_for_people(relation: Relation, name: str) -> None:
    assert relation.display_name == name
