"""The report of `rcml prepare` as Markdown."""

import re

from model.markdown_table import table

from .preparation_report import PreparationReport


def preparation_markdown(report: PreparationReport) -> str:
    """Format the report as Markdown."""
    items = report.items
    text_only = (
        f", {items.text_only} without a picture (indexed, but not trained on)" if items.text_only else ""
    )
    lines = [
        "# Prepared data",
        "",
        f"{items.kept} items: {items.train} for training, {items.validation} for early stopping, "
        f"{items.test} for evaluation{text_only}. {report.pairs} related pairs within the splits; "
        f"{report.pairs_of_one_relation} of them have only one relation.",
        "",
        f"{report.edges_across_kept} edges between a training item and a validation or test item are kept for "
        f"evaluation. {report.edges_across_dropped} edges between a validation item and a test item were dropped.",
        "",
        *(f"**{cell(sentence)}**\n" for sentence in report.advice),
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in report.log.items()),
        "",
        *table(
            ["relation", "users", "items", "train pairs", "validation pairs", "test pairs"],
            (
                [
                    f"`{row.relation}`",
                    "" if row.users is None else str(row.users),
                    *map(str, (row.items, row.pairs.train, row.pairs.validation, row.pairs.test)),
                ]
                for row in report.relations
            ),
        ),
        "",
        *(f"- **{row.relation}**: {row.description}" for row in report.relations),
        "",
        *_file_lines(report),
        *_column_lines(report),
        "## Skipped",
        "",
        *(f"- `{item_id}`: {reason}" for item_id, reason in report.set_aside.items()),
    ]
    if not report.set_aside:
        lines.append("None.")
    return "\n".join(lines) + "\n"


def _file_lines(report: PreparationReport) -> list[str]:
    """Format the account of each file: rows, kept rows, and the rows set aside with their reasons."""
    lines = [
        "## Files",
        "",
        *table(
            ["file", "rows", "kept", "set aside", "read as"],
            (
                [
                    cell(file.file),
                    f"{file.rows:,}",
                    f"{file.kept:,}",
                    f"{file.rows - file.kept:,}",
                    cell("; ".join(file.notes)),
                ]
                for file in report.files
            ),
        ),
        "",
    ]
    for file in report.files:
        for skipped in file.skipped:
            examples = "; ".join(
                ": ".join([f"line {line}"] * bool(line) + [f"`{cell(value)}`"] * bool(value))
                for line, value in skipped.examples
                if line or value
            )
            lines.append(
                f"- {cell(file.file)}: {skipped.rows:,} rows: {cell(skipped.reason)}"
                + (f" ({examples})" if examples else "")
            )
    lines += [f"- {name}: {count:,}" for name, count in report.changes.items()]
    return [*lines, ""]


def _column_lines(report: PreparationReport) -> list[str]:
    """Format the attribute columns with their types and examples."""
    if not report.columns:
        return []
    return [
        "## Attributes",
        "",
        *table(
            ["column", "type", "because", "examples", "not read"],
            (
                [
                    f"`{cell(column.column)}`",
                    column.type or "left out",
                    cell(column.decision),
                    cell(", ".join(column.examples)),
                    f"{column.unread:,} ({cell(', '.join(column.unread_examples))})" if column.unread else "",
                ]
                for column in report.columns
            ),
        ),
        "",
    ]


def cell(text: str) -> str:
    """Escape `text` so that it can neither end a cell of a Markdown table nor be markup."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line)
