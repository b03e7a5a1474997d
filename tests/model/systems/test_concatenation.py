"""Tests of the concatenation of relation and item texts."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from model.systems.concatenation import Concatenation


def count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def join(item: str, relation: str, room: int) -> str:
    return Concatenation(count_words, room).join([item], [relation])[0][0]


def test_relation_comes_first() -> None:
    assert join("green kite", "Bought together.", 9) == "Bought together. green kite"


def test_items_and_relations_are_the_axes() -> None:
    found = Concatenation(count_words, 9).join(["a", "b"], ["x", "y", "z"])
    assert found == [["x a", "y a", "z a"], ["x b", "y b", "z b"]]


def test_long_item_is_cut_to_what_the_relation_leaves() -> None:
    assert join("a b c d e f g h", "x y", 6) == "x y a b c d"


def test_long_relation_is_cut_to_what_the_item_leaves() -> None:
    assert join("a b", "s t u v w x y z", 6) == "s t u v a b"


def test_both_keep_half_if_both_are_long() -> None:
    assert join("a b c d e f", "u v w x y z", 6) == "u v w a b c"


def test_relation_without_text_leaves_the_item_alone() -> None:
    assert join("a b c d", "", 3) == "a b c"


def test_item_without_text_stays_empty() -> None:
    assert join("  ", "x y", 6) == ""


def test_text_without_spaces_is_cut_in_pieces() -> None:
    counted = Concatenation(lambda texts: [len(text) for text in texts], 40)
    assert counted.join(["b" * 100], ["a" * 10]) == [["a" * 10 + " " + "b" * 16]]


words = st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=30).map(" ".join)


@given(words, words, st.integers(2, 40))
def test_neither_part_is_cut_below_half_and_nothing_fits_better(item: str, relation: str, room: int) -> None:
    joined = join(item, relation, room).split()
    all_words = [*relation.split(), *item.split()]
    assert len(joined) == min(room, len(all_words))
    kept = next(
        count
        for count in range(len(joined) + 1)
        if joined == [*relation.split()[:count], *item.split()[: len(joined) - count]]
        and count >= min(len(relation.split()), room // 2)
    )
    assert len(joined) - kept >= min(len(item.split()), room // 2)
