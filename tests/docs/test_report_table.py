"""Tests that the table of `report.json` in docs/artifacts.md matches the models."""

from .report_table import COMMITTED, table, with_table


def test_committed_table_matches_models() -> None:
    document = COMMITTED.read_text("utf-8")
    assert with_table(document) == document, (
        "docs/artifacts.md no longer describes report.json. Run `make tables` to update it, and review the changes."
    )


def test_every_key_has_description() -> None:
    rows = [row.strip("|").split(" | ") for row in table().splitlines()[2:]]
    assert len(rows) > 30
    for key, content in rows:
        assert content.strip(), f"{key} has no description"
