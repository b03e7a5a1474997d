"""The report of `rcml prepare` as Markdown. All texts of the shop are escaped.

Blocks below a line `<!-- name -->` are drawn in another way on the page (preparation_page.py).
"""

from collections.abc import Sequence

from model.markdown_table import table
from model.page.markdown_text import code, escaped

from .preparation_report import (
    Distribution,
    FileCounts,
    FilterStep,
    Note,
    PairedItem,
    PreparationReport,
    RelationCounts,
    SamplePair,
)

MAX_ROWS = 100
"""Maximum number of files and of attribute columns that are listed."""

MAX_SENTENCE = 2000
"""Maximum number of characters of a sentence that contains texts of the shop."""


def preparation_markdown(report: PreparationReport) -> str:
    """Format the report as Markdown."""
    lines = [
        "# Prepared data",
        "",
        *([f"**{sentence(report.verdict.sentence)}**", ""] if report.verdict else []),
        *(f"- {warning}" for warning in warnings(report)),
        *([""] if warnings(report) else []),
        counts(report),
        "",
        *_log_lines(report),
        "## Relations",
        "",
        *table(
            ["relation", "users", "items", "train pairs", "validation pairs", "test pairs"],
            (
                [
                    code(row.relation),
                    "" if row.users is None else f"{row.users:,}",
                    *(
                        f"{number:,}"
                        for number in (row.items, row.pairs.train, row.pairs.validation, row.pairs.test)
                    ),
                ]
                for row in report.relations
            ),
        ),
        "",
        *(line for number, row in enumerate(report.relations) for line in _relation_lines(row, number)),
        *_distribution_lines(report.distributions),
        *_split_lines(report),
        *_file_lines(report.files),
        *_column_lines(report),
        *_skipped_lines(report),
    ]
    return "\n".join(lines).rstrip() + "\n"


def sentence(text: str) -> str:
    """Escape a sentence of ours, which may contain names and values of the shop."""
    return escaped(text, MAX_SENTENCE)


def warnings(report: PreparationReport) -> list[str]:
    """Return what could be mended, the most serious first, as Markdown."""
    notes: Sequence[Note] = report.verdict.notes if report.verdict else ()
    return [
        *(f"**{sentence(note.text)}** {sentence(note.remedy)}" for note in notes),
        *(sentence(text) for text in report.advice),
    ]


def counts(report: PreparationReport) -> str:
    """Return the numbers of items and pairs as a paragraph."""
    items = report.items
    text_only = (
        f", {items.text_only:,} without a picture (indexed, but not trained on)" if items.text_only else ""
    )
    return (
        f"{items.kept:,} items: {items.train:,} for training, {items.validation:,} for early stopping, "
        f"{items.test:,} for evaluation{text_only}. {report.pairs:,} related pairs within the splits; "
        f"{report.pairs_of_one_relation:,} of them have only one relation. "
        f"{report.trained_items:,} of the items for training have a pair."
    )


def sample_line(pair: SamplePair) -> str:
    """Return a sample pair as Markdown."""
    strength = "" if pair.support is None else f" ({pair.support:,} users, NPMI {pair.npmi:.2f})"
    return f"{_item(pair.first)} and {_item(pair.second)}{strength}"


def _item(item: PairedItem) -> str:
    return f"“{escaped(item.title)}”" if item.title.strip() else code(item.item_id)


def _relation_lines(row: RelationCounts, number: int) -> list[str]:
    """Format one relation: its description, its categories, and sample pairs."""
    lines = [f"### {escaped(row.relation)}", "", sentence(row.description), ""]
    if row.categories:
        lines += [
            f"<!-- categories-{number} -->",
            *table(
                ["category", "share", "lift"],
                (
                    [escaped(own.category), f"{100 * own.share:.1f} %", f"{own.lift:.2f}"]
                    for own in row.categories
                ),
            ),
            "",
        ]
    if row.samples:
        lines += [f"<!-- pairs-{number} -->", *(f"- {sample_line(pair)}" for pair in row.samples), ""]
    return lines


def _log_lines(report: PreparationReport) -> list[str]:
    """Format the steps from the log to the pairs, and all other counts of the log."""
    lines = ["## From the log to the pairs" if report.filters else "## From the edges to the pairs", ""]
    if report.filters:
        lines += ["<!-- filters -->", *_filter_table(report.filters), ""]
    lines += [
        f"{report.edges_across_kept:,} edges between a training item and a validation or test item are kept for "
        f"evaluation. {report.edges_across_dropped:,} edges between a validation item and a test item were dropped.",
        "",
    ]
    shown = {"edges_of_text_only_items", "self_edges", "edges_of_unknown_items", "not_rated", "low_rated"}
    others = [
        f"- {name.replace('_', ' ')}: {count:,}"
        for name, count in report.log.items()
        if count and name in shown
    ]
    return [*lines, *others, *([""] if others else [])]


def _filter_table(steps: Sequence[FilterStep]) -> list[str]:
    return table(
        ["step", "interactions", "users", "items"],
        (
            [
                escaped(step.step),
                f"{step.interactions:,}",
                "" if step.users is None else f"{step.users:,}",
                "" if step.items is None else f"{step.items:,}",
            ]
            for step in steps
        ),
    )


def _distribution_lines(found: Sequence[Distribution]) -> list[str]:
    """Format the histograms as tables."""
    lines = ["## Distributions", "", "<!-- distributions -->"]
    lines += (
        f"- {one.name}: median {one.median:g}, at most {one.most:,}. "
        + ", ".join(f"{span(bin_.least, bin_.most)}: {bin_.count:,} {one.counted}" for bin_ in one.bins)
        for one in found
    )
    return [*lines, ""] if found else []


def span(least: int, most: int) -> str:
    """Return the range of a bin."""
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _split_lines(report: PreparationReport) -> list[str]:
    """Format the numbers of items and pairs of each split."""
    within = [row.pairs for row in report.relations]
    return [
        "## Splits",
        "",
        *table(
            ["split", "pictured items", "pairs within", "pairs with training"],
            (
                [
                    name,
                    f"{getattr(report.items, name):,}",
                    f"{sum(getattr(pairs, name) for pairs in within):,}",
                    "" if name == "train" else f"{getattr(report.pairs_across, name):,}",
                ]
                for name in ("train", "validation", "test")
            ),
        ),
        "",
    ]


def _file_lines(files: Sequence[FileCounts]) -> list[str]:
    """Format the account of each file: rows, kept rows, and the rows set aside with their reasons."""
    if not files:
        return []
    lines = [
        "## Files",
        "",
        *table(
            ["file", "rows", "kept", "set aside", "read as"],
            (
                [
                    escaped(file.file),
                    f"{file.rows:,}",
                    f"{file.kept:,}",
                    f"{file.rows - file.kept:,}",
                    sentence("; ".join(file.notes)),
                ]
                for file in files[:MAX_ROWS]
            ),
            texts=("read as",),
        ),
        "",
        *_more(files, "files"),
    ]
    reasons = [
        f"- {escaped(file.file)}: {skipped.rows:,} row{'' if skipped.rows == 1 else 's'}: {sentence(skipped.reason)}"
        + _bracketed(
            [
                ": ".join([f"line {line}"] * bool(line) + [code(value)] * bool(value))
                for line, value in skipped.examples
                if line or value
            ]
        )
        for file in files
        for skipped in file.skipped
    ]
    shown = reasons[:MAX_ROWS]
    return [*lines, *shown, *([""] if shown else []), *_more(reasons, "reasons")]


def _column_lines(report: PreparationReport) -> list[str]:
    """Format the attribute columns with their types and examples, and the texts that were cleaned."""
    lines: list[str] = []
    if report.columns:
        lines += [
            "## Columns",
            "",
            *table(
                ["column", "type", "because", "examples", "not read"],
                (
                    [
                        code(column.column),
                        column.type or "left out",
                        sentence(column.decision),
                        ", ".join(map(escaped, column.examples)),
                        f"{column.unread:,}{_bracketed(list(map(escaped, column.unread_examples)))}"
                        if column.unread
                        else "",
                    ]
                    for column in report.columns[:MAX_ROWS]
                ),
                texts=("type", "because", "examples", "not read"),
            ),
            "",
            *_more(report.columns, "columns"),
        ]
    if report.changes:
        lines += [
            "## Cleaned values",
            "",
            *(f"- {sentence(name)}: {count:,}" for name, count in report.changes.items()),
            "",
        ]
    return lines


def _skipped_lines(report: PreparationReport) -> list[str]:
    """Format the skipped items, grouped by reason; report.json lists all of them."""
    if not report.set_aside:
        return ["## Skipped items", "", "None."]
    lines = [
        f"- {skipped.items:,} item{'' if skipped.items == 1 else 's'}: {sentence(skipped.reason)} ("
        + "; ".join(f"{code(item_id)}: {sentence(reason)}" for item_id, reason in skipped.examples)
        + ")"
        for skipped in report.skipped_items
    ]
    return ["## Skipped items", "", *lines]


def _more(listed: Sequence[object], name: str) -> list[str]:
    """Say how many of `listed` are not shown."""
    more = len(listed) - MAX_ROWS
    return [f"{more:,} more {name} are in report.json.", ""] if more > 0 else []


def _bracketed(parts: Sequence[str]) -> str:
    return f" ({'; '.join(parts)})" if parts else ""
