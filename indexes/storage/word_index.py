"""Word index of a catalogue: finds the items whose title, categories and ID contain all words of a search.

It is a full-text table of SQLite (FTS5) beside the items. The words are split and normalised here, so that the items of
the overlay, which have no table, are searched by the same rules. A word of a search matches every word that it begins,
because people see results while they type.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from unicodedata import combining, normalize

from model.records import Item

CREATE_WORDS = """
    CREATE VIRTUAL TABLE words USING fts5 (
        text, content = '', detail = none, columnsize = 0, prefix = '1 2 3', tokenize = 'ascii'
    )
"""
"""Statement that creates the table; rows of the table are those of `items`.

It holds only which word occurs in which row. The lists for beginnings of one to three letters make such short searches
as fast as those for whole words. The tokenizer `ascii` splits at the spaces between words and nowhere else. `unicode61`
would also split words at letters that it takes for signs, and a search for such a word would fail.
"""

INSERT_WORDS = "INSERT INTO words (rowid, text) VALUES (?, ?)"

_HAS_WORDS = "SELECT 1 FROM sqlite_master WHERE name = 'words'"
_SEARCH = "SELECT rowid FROM words WHERE words MATCH ? AND rowid >= ? ORDER BY rowid"

MAX_WORDS = 16
"""Maximum number of words of a search that are looked up; the few items that have all of them are read and compared."""


def split_words(text: str) -> list[str]:
    """Split a text into words of letters and digits, in lower case and without accents."""
    # Case is folded after compatible characters are replaced, because the replacement of "™" is "TM".
    folded = normalize("NFKD", normalize("NFKD", text).casefold())
    return re.findall(r"[^\W_]+", "".join(one for one in folded if not combining(one)))


def item_words(item: Item) -> list[str]:
    """Return the words by which an item is found."""
    return split_words(" ".join((item.title, *item.categories, item.item_id)))


def contains(item: Item, words: Sequence[str]) -> bool:
    """Return whether each of `words` begins a word of the item."""
    own = item_words(item)
    return all(any(one.startswith(word) for one in own) for word in words)


def has_word_index(connection: sqlite3.Connection) -> bool:
    """Return whether the catalogue has a word index; those of earlier versions of rcml have none."""
    return connection.execute(_HAS_WORDS).fetchone() is not None


def matching_rows(connection: sqlite3.Connection, words: Sequence[str], start: int) -> Iterator[int]:
    """Yield the rows from `start` on of the items that contain `words`, which `split_words` returned, in order."""
    match = " AND ".join(f'"{word}"*' for word in words)
    for (row,) in connection.execute(_SEARCH, (match, start)):
        yield row
