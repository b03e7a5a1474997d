r"""Delimited text (RFC 4180 and what other programs make of it), read so that no row is swallowed.

A quoted cell may contain line breaks, so one quotation mark that is not closed can swallow all rows up to the next
one. Each record is therefore read strictly: a closing quotation mark must be followed by a separator or the end of the
line. If it is not, the line is read once more on its own, with `\"` or a stray `"` inside a cell. A line that fits
in no way is set aside with the reason, and reading goes on with the next line.
"""

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import polars as pl

from model.errors import InputError

from .row_ledger import RowLedger
from .text_file import CONTROL_CHARACTER, TextLines

SEPARATORS = (",", ";", "\t", "|")

SNIFFED_LINES = 200
"""Number of lines from which the separator is derived."""

MAX_CELL_CHARACTERS = 1_000_000
"""Maximum length of a cell. A longer one is taken for a quotation mark that is not closed."""

REPEATED_HEADER = "the row repeats the names of the columns, as in files that were joined"

_WORDS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}

csv.field_size_limit(MAX_CELL_CHARACTERS)


@dataclass(frozen=True)
class CsvDialect:
    """How a file separates its cells.

    `header` contains the column names if the file has none in its first line. Without `quotes`, a quotation mark is a
    character like any other. `separator` may have several characters, such as `::`, in a file without quotes.
    """

    separator: str | None = None
    header: Sequence[str] | None = None
    quotes: bool = True


@dataclass
class CsvRecords:
    """Records of delimited text: column names, then the records with their lines."""

    lines: TextLines
    dialect: CsvDialect
    ledger: RowLedger
    separator: str = field(init=False)
    header: list[str] = field(init=False)
    _first: list[str] = field(init=False, repr=False)
    _pending: deque[str] = field(init=False, repr=False)
    _position: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.header, self._first = [], []
        self._pending = deque(self.lines.block())
        self.separator = self.dialect.separator or self._stated_separator() or self._sniffed_separator()
        if self.dialect.header is not None:
            self.header = list(self.dialect.header)
            return
        cells: list[str] = []
        while (self._pending or self._fill()) and not cells:
            record = self._record()
            cells = record[1] if record else []
        while cells and not cells[-1].strip():
            cells.pop()
        self._first = [cell.strip() for cell in cells]
        if any(map(CONTROL_CHARACTER.search, self._first)):
            raise InputError(f"{self.ledger.path} is no text. Convert it to .csv, .jsonl or .parquet.")
        self.header = self._column_names(self._first)

    def _stated_separator(self) -> str | None:
        """Take the line `sep=;` with which spreadsheets name their separator."""
        found = re.fullmatch(r'"?sep=([^"\r\n])"?\s*', self._pending[0]) if self._pending else None
        if found is None:
            return None
        self._take(1)
        return found[1]

    def _sniffed_separator(self) -> str:
        separator = sniff_separator(list(islice(self._pending, SNIFFED_LINES)))
        if separator != ",":
            self.ledger.note(f"separated by {_WORDS[separator]}")
        return separator

    def _column_names(self, cells: list[str]) -> list[str]:
        """Return the names of the columns; empty and repeated names get a number."""
        names: list[str] = []
        for position, cell in enumerate(cells, 1):
            name = cell or f"column_{position}"
            if name in names:
                name = f"{name}_{position}"
                self.ledger.note(
                    f"the column {cell} occurs more than once; it is called {name} in column {position}"
                )
            names.append(name)
        return names

    @property
    def blanks(self) -> str:
        """Return the characters that a blank line consists of; a tab is none if it separates cells."""
        return " \r\n\ufeff" if self.separator == "\t" else " \t\r\n\ufeff"

    def clean_block(self) -> list[str] | None:
        """Take the pending lines if none of them contains a quotation mark, so that each line is one record.

        Return None if they must be read one by one, and an empty list at the end of the file.
        """
        if not self._pending:
            self._pending.extend(self.lines.block())
        block = list(self._pending)
        if self.dialect.quotes and any('"' in line for line in block):
            return None
        self._pending.clear()
        self._position += len(block)
        return block

    def put_back(self, block: list[str]) -> None:
        """Undo `clean_block`, so that `records_of_block` reads the lines one by one."""
        self._pending.extendleft(reversed(block))
        self._position -= len(block)

    def records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line (from 1) and the cells of each record with as many cells as the header; count all records."""
        while self._pending or self._fill():
            yield from self.records_of_block()

    def records_of_block(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the records of the pending lines; the last one may need further lines."""
        last = self._position + len(self._pending)
        while self._pending and self._position < last:
            record = self._record()
            if record is None:
                continue
            line, cells = record
            self.ledger.rows += 1
            if self._repeats_header(cells):
                self.ledger.skip(REPEATED_HEADER, line, self.separator.join(cells))
            elif self._fits(cells):
                yield line, cells
            else:
                self.ledger.skip(self._misfit(cells), line, self.separator.join(cells))

    def header_again(self, lines: pl.Series) -> bool:
        """Tell whether one of `lines` (without line ends) repeats the names of the columns."""
        return bool(self._first) and bool((lines == self.separator.join(self._first)).any())

    def _repeats_header(self, cells: Sequence[str]) -> bool:
        """Tell whether `cells` are the names of the columns; empty cells may follow them."""
        names = self._first
        return (
            bool(names)
            and cells[0].strip() == names[0]
            and [cell.strip() for cell in cells[: len(names)]] == names
            and not any(cell.strip() for cell in cells[len(names) :])
        )

    def _fits(self, cells: list[str]) -> bool:
        """Tell whether there are as many cells as the header has, and remove empty cells beyond them."""
        while len(cells) > len(self.header) and not cells[-1].strip():
            cells.pop()
        return len(cells) == len(self.header)

    def _misfit(self, cells: list[str]) -> str:
        return (
            f"the row has {len(cells)} cells, the header {len(self.header)}; put cells that contain the separator "
            f"({_WORDS.get(self.separator, self.separator)}) between quotation marks"
        )

    def _fill(self) -> bool:
        block = self.lines.block()
        self._pending.extend(block)
        return bool(block)

    def _take(self, count: int) -> None:
        for _ in range(count):
            self._pending.popleft()
        self._position += count

    def _record(self) -> tuple[int, list[str]] | None:
        """Take the next record; return its line and cells, or None for a blank line or one that was set aside."""
        line, number = self._pending[0], self._position + 1
        if not line.strip(self.blanks):
            self._take(1)
            return None
        line = line.removeprefix("\ufeff")  # of a file that was appended to another
        if '"' not in line or not self.dialect.quotes:
            self._take(1)
            return number, line.rstrip("\r\n").split(self.separator)
        cells = self._alone(line)
        if cells is not None and self.header and not self._fits(cells):
            cells = self._leniently(line) or cells
        if cells is not None:
            self._take(1)
            return number, cells
        if (record := self._over_several_lines()) is not None:
            return number, record
        cells = self._leniently(line)
        self._take(1)
        if cells is not None:
            self.ledger.note("quotation marks inside cells were not doubled (RFC 4180, 2.7); they were kept")
            return number, cells
        self.ledger.rows += 1
        self.ledger.skip(
            "a quotation mark is not closed, or one inside a cell is not doubled", number, line.rstrip("\r\n")
        )
        return None

    def _alone(self, text: str) -> list[str] | None:
        """Read `text` as exactly one record; return None if its quotation marks do not fit."""
        try:
            records = list(csv.reader([text], delimiter=self.separator, strict=True))
        except csv.Error:
            return None
        return records[0] if len(records) == 1 else None

    def _over_several_lines(self) -> list[str] | None:
        """Take the record that begins in the pending line and ends in a later one; None if there is none.

        The first later line with which the quotation marks come in pairs ends the record. If the further lines look
        like records of their own, the marks belong to different rows, and the record is refused.
        """
        marks = characters = 0
        width = len(self.header)
        for count in range(1, MAX_CELL_CHARACTERS):
            if count > len(self._pending) and not self._fill():
                return None
            line = self._pending[count - 1]
            marks += line.count('"')
            characters += len(line)
            if characters > MAX_CELL_CHARACTERS:
                return None
            if count > 1 and marks % 2 == 0:
                break
        lines = list(islice(self._pending, count))
        try:
            records = list(csv.reader(lines, delimiter=self.separator, strict=True))
        except csv.Error:
            return None
        if len(records) != 1 or (width and not self._fits(records[0])) or self._like_rows(lines[1:]):
            return None
        self._take(count)
        return records[0]

    def _like_rows(self, lines: Sequence[str]) -> bool:
        """Tell whether the later lines of a record look like rows: they have as many cells as the header.

        Either each has a first cell without a blank, as an ID, or most of those before the last have a further cell
        without one. In a paragraph, a blank follows each comma; what follows in the last line is part of the record.
        """
        width = len(self.header)
        split = [self._alone(line) or [] for line in lines]
        rows = [cells for cells in split if width > 1 and len(cells) == width]
        if len(rows) == len(lines) and all(_is_word(cells[0]) for cells in rows):
            return True
        inner = [cells for cells in split[:-1] if width > 1 and len(cells) == width]
        return 2 * sum(any(map(_is_word, cells[1:])) for cells in inner) > len(split[:-1])

    def _leniently(self, line: str) -> list[str] | None:
        """Read one line whose quotation marks do not follow RFC 4180; return None if the cells do not fit."""
        width = len(self.header)
        text = line.rstrip("\r\n")
        if '\\"' in text:
            try:
                escaped = list(
                    csv.reader(
                        [text], delimiter=self.separator, doublequote=False, escapechar="\\", strict=True
                    )
                )
            except csv.Error:
                escaped = []
            if len(escaped) == 1 and (not width or self._fits(escaped[0])):
                return escaped[0]
        separator = re.escape(self.separator)
        cell = re.compile(rf'(?:"(?P<quoted>.*?)"\s*|(?P<plain>[^{separator}]*)){separator}')
        text += self.separator
        cells: list[str] = []
        position = 0
        while position < len(text):
            found = cell.match(text, position)
            assert found is not None, "the plain form matches up to the next separator"
            quoted = found["quoted"]
            if quoted is None and found["plain"].lstrip().startswith('"'):
                return None  # opened and not closed
            cells.append(found["plain"] if quoted is None else re.sub(r'""|\\"', '"', quoted))
            position = found.end()
        return cells if not width or self._fits(cells) else None


def _is_word(cell: str) -> bool:
    return bool(cell) and not re.search(r"\s", cell)


def sniff_separator(lines: Sequence[str]) -> str:
    """Return the separator with which most lines have the same number of cells as the first line, and at least two.

    Among equally good separators the one with the most cells is chosen; a file of one column has a comma.
    """
    filled = [line for line in lines if line.strip()]
    best, separator = (0.0, 0), ","
    for candidate in SEPARATORS:
        try:
            widths = [len(cells) for cells in csv.reader(filled, delimiter=candidate) if cells]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        agreeing = Counter(widths)[widths[0]] / len(widths)
        if (round(agreeing, 1), widths[0]) > best:
            best, separator = (round(agreeing, 1), widths[0]), candidate
    return separator
