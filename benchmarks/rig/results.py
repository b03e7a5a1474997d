"""How every benchmark tells what it measured: tables for people, and in the end one line of JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are figures."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def conclude(figures: Mapping[str, Any]) -> None:
    """The last line: one JSON object."""
    print(json.dumps(figures))
