"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import printable

if TYPE_CHECKING:
    from ..runs.directory import Run
    from ..runs.html import Table

__all__ = ["print_json", "print_table", "show_run"]


def show_run(run: Run, look_at: str, as_json: bool) -> None:
    """Where a run is: the file to look at first, or its manifest."""
    if as_json:
        print_json({"run": str(run.path), **run.manifest.model_dump()})
    else:
        print(printable(f"{run.path / look_at}"))


def print_json(value: Any) -> None:
    """One JSON document; what JSON has no type for is printed as text."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def print_table(table: Table, *, words: bool = False) -> None:
    """A table, as wide as the terminal; 200 columns in a file or pipe. Numbers are flush right, words left."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    rich_table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(table.head):
        rich_table.add_column(name, justify="left" if words or index == 0 else "right", overflow="fold")
    for row in table.rows:
        rich_table.add_row(*map(Text, row))
    console.print(rich_table)
