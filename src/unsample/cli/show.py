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

WIDE, GAP, LONGEST = 200, 2, 200


def show_run(run: Run, look_at: str, as_json: bool) -> None:
    """Where a run is: the file to look at first, or its manifest."""
    if as_json:
        print_json({"run": str(run.path), **run.manifest.model_dump()})
    else:
        print(printable(f"{run.path / look_at}"))


def print_summary(run: Run) -> None:
    """How the pictures of a run were inverted, and what else it tells of each of them."""
    from ..runs.report import summary

    for line in summary(run):
        print(printable(line))


def say(text: str) -> None:
    """A line on standard error, whatever names are in it."""
    words = (word if len(word) <= LONGEST else f"{word[:LONGEST]}..." for word in text.split())
    print(printable(" ".join(words)), file=sys.stderr)


def print_json(value: Any) -> None:
    """One JSON document; what JSON has no type for is printed as text."""
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def print_table(table: Table, *, words: bool = False) -> None:
    """A table, as wide as the terminal; 200 columns in a file or pipe. Numbers are flush right, words left.

    Of words, the last columns are left out where the terminal is too narrow to show them without breaking words.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    shown = _fitting(table, console.width) if words else len(table.head)
    rich_table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(table.head[:shown]):
        justify: Any = "left" if words or index == 0 else "right"
        rich_table.add_column(name, justify=justify, overflow="fold", min_width=_longest(table, index) if words else None)
    for row in table.rows:
        rich_table.add_row(*(Text(printable(cell)) for cell in row[:shown]))
    console.print(rich_table)
    if shown < len(table.head):
        say(f"a wider terminal, or a file, shows also: {', '.join(table.head[shown:])}")


def _fitting(table: Table, width: int) -> int:
    """How many columns fit without breaking words; at least two."""
    widths = [_longest(table, index) + GAP for index in range(len(table.head))]
    return next((count for count in range(len(widths), 2, -1) if sum(widths[:count]) <= width), min(2, len(widths)))


def _longest(table: Table, index: int) -> int:
    """Characters of the longest word of a column; of the first, which has names, of the longest name."""
    cells = [table.head[index], *(row[index] for row in table.rows)]
    return max(len(word) for cell in cells for word in ([cell] if index == 0 else cell.split() or [""]))
