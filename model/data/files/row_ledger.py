"""Account of the rows of one raw file: all rows = kept rows + rows set aside, each with a reason."""

from dataclasses import dataclass, field
from pathlib import Path

MAX_EXAMPLES = 3
"""Maximum number of rows that are named for each reason."""

MAX_VALUE_LENGTH = 80
"""Maximum number of characters of a value in a message."""


@dataclass
class SkippedRows:
    """Rows that were set aside for one reason: their number, and the first lines with their values."""

    count: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class RowLedger:
    """Rows of one file, counted while it is read.

    `rows` counts the records of the file (not lines: a quoted cell may contain line breaks; blank lines and the header
    are no records). `notes` says how the file was read, such as its encoding and separator.
    """

    path: Path
    rows: int = 0
    skipped: dict[str, SkippedRows] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def set_aside(self) -> int:
        """Return the number of rows set aside."""
        return sum(rows.count for rows in self.skipped.values())

    @property
    def kept(self) -> int:
        """Return the number of rows that were not set aside."""
        return self.rows - self.set_aside

    def skip(self, reason: str, line: int, value: str = "", count: int = 1) -> None:
        """Set `count` rows aside for `reason`; `line` (from 1, or 0 if unknown) and `value` describe the first."""
        rows = self.skipped.setdefault(reason, SkippedRows())
        rows.count += count
        if len(rows.examples) < MAX_EXAMPLES:
            rows.examples.append((line, shortened(value)))

    def note(self, text: str) -> None:
        """Add `text` to the notes, once."""
        if text not in self.notes:
            self.notes.append(text)

    def summary(self) -> str:
        """Describe the rows set aside in one sentence: their number, and the first with its line and reason."""
        if not self.skipped:
            return ""
        reason, (line, value) = min(
            ((reason, rows.examples[0]) for reason, rows in self.skipped.items()),
            key=lambda found: found[1][0] or self.rows + 1,
        )
        shown = f" ({value})" if value else ""
        rows = "row was" if self.set_aside == 1 else "rows were"
        return (
            f"{self.path.name}: {self.set_aside:,} of {self.rows:,} {rows} set aside, the first"
            f"{f' in line {line}' if line else ''}: {reason}{shown}"
        )


def shortened(value: str) -> str:
    """Return `value` on one line, cut to `MAX_VALUE_LENGTH` characters."""
    line = " ".join(value.split())
    return line if len(line) <= MAX_VALUE_LENGTH else line[: MAX_VALUE_LENGTH - 3] + "..."
