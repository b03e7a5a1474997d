"""Output of the benchmarks: readable tables, then one line of JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in which every column except the first holds numbers."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def conclude(figures: Mapping[str, Any]) -> None:
    """Print the figures as one JSON object on the last line."""
    print(json.dumps(figures))
