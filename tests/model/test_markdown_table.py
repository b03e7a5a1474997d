"""Tables in Markdown."""

from model.markdown_table import table


def test_first_column_is_left_aligned_and_others_right() -> None:
    assert table(["name", "a", "b"], [["x", "1", "2"]]) == [
        "| name | a | b |",
        "|---|---:|---:|",
        "| x | 1 | 2 |",
    ]


def test_bar_in_a_cell_does_not_end_it() -> None:
    assert table(["a|b"], [["c|d"]]) == [r"| a\|b |", "|---|", r"| c\|d |"]
