"""docs/artifacts.md tells of `report.json` what the models do."""

from .report_table import COMMITTED, table, with_table


def test_the_committed_table_is_that_of_the_models() -> None:
    document = COMMITTED.read_text("utf-8")
    assert with_table(document) == document, (
        "report.json is no longer what docs/artifacts.md says. `make tables` rewrites the table; look at what changed."
    )


def test_every_key_is_described() -> None:
    rows = [row.strip("|").split(" | ") for row in table().splitlines()[2:]]
    assert len(rows) > 30
    for key, content in rows:
        assert content.strip(), f"{key} has no description"
