"""Files of a source as a user has them, written by the tests, and what is read from them."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

from model.data.item_table import read_item_table
from model.data.log_table import read_log_table
from model.data.prepare_config import PrepareConfig
from model.data.sources.open_source import open_source
from model.data.sources.source import Source

Log = list[tuple[str, str, float | None, float | None]]


def put(path: Path, content: str, encoding: str = "utf-8") -> Path:
    """Write a file; its suffix says whether it is compressed with gzip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def opened(source: str, folder: Path | None = None, **options: Any) -> Source:
    """Open a source as `rcml prepare --source SOURCE --folder FOLDER` does."""
    given = {"source": source, "folder": folder, "out": Path("unused"), **options}
    return open_source(PrepareConfig.model_validate(given))


def items_of(source: Source) -> dict[str, dict[str, Any]]:
    """Return the items by their IDs; attributes without a value are left out."""
    table = read_item_table(source.items(), {}, source.untyped, source.types)
    rows = table.frame.to_dicts()
    return {row["item_id"]: {name: value for name, value in row.items() if value is not None} for row in rows}


def log_of(source: Source) -> Log:
    """Return the log as user, item, rating and time in seconds."""
    return [row for batch in read_log_table(source.interactions(), Counter()) for row in batch.rows()]


def skipped(source: Source) -> dict[str, int]:
    """Return the number of rows set aside for each reason, and check the accounts."""
    assert all(ledger.rows == ledger.kept + ledger.set_aside for ledger in source.ledgers)
    counts: Counter[str] = Counter()
    for ledger in source.ledgers:
        counts.update({reason: rows.count for reason, rows in ledger.skipped.items()})
    return dict(counts)
