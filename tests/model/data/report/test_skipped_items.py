"""Skipped items are grouped by the kind of their reason, with all of them counted."""

from model.data.report.skipped_items import MAX_REASONS, grouped


def test_reasons_that_differ_only_in_a_value_are_one_kind() -> None:
    skipped = {f"i{number}": f"picture {number} big.jpg does not exist" for number in range(9)}
    skipped["x"] = "picture wide.png is too large (9000 x 9000 pixels)"
    skipped["y"] = "picture tall.png is too large (100 x 90000 pixels)"
    skipped["z"] = "no text in title, categories"
    found = grouped(skipped)
    assert [(one.reason, one.items) for one in found] == [
        ("picture … does not exist", 9),
        ("picture … is too large …", 2),
        ("no text in title, categories", 1),
    ]
    assert found[0].examples == tuple((f"i{number}", skipped[f"i{number}"]) for number in range(3))


def test_reasons_with_quoted_ids_are_one_kind() -> None:
    found = grouped({"a": "the ID 'a b' is taken", "b": 'the ID "c" is taken'})
    assert [(one.reason, one.items) for one in found] == [("the ID … is taken", 2)]


def test_rare_reasons_are_counted_together() -> None:
    letters = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]
    found = grouped({name: f"reason {name}" for name in letters} | {"z1": "reason ak"})
    assert len(found) == MAX_REASONS
    assert sum(one.items for one in found) == 101
    assert (found[0].reason, found[0].items) == ("reason ak", 2)
    assert (found[-1].reason, found[-1].items) == ("other reasons", 51)


def test_nothing_skipped_gives_no_groups() -> None:
    assert grouped({}) == ()
