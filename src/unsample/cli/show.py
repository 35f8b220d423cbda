"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..errors import printable

if TYPE_CHECKING:
    from ..runs.directory import Run
    from ..runs.html import Table

WIDE, GAP, LONGEST = 200, 2, 200

SPANS = 12
"""Of numbers that are listed."""


def show_run(run: Run, look_at: str, as_json: bool) -> None:
    """Where a run is: the file to look at first, after what else there is; or its manifest."""
    if as_json:
        print_json({"run": str(run.path), **run.manifest.model_dump()})
    else:
        others = {f"{folder}/" if slash else folder for folder, slash, _ in (name.partition("/") for name in run.files)}
        if others := others - {look_at}:
            print(printable(f"beside {look_at}: {', '.join(sorted(others))}"))
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
    widths = _widths(table, shown, console.width) if words else [None] * shown
    for index, (name, width) in enumerate(zip(table.head, widths, strict=False)):
        justify: Any = "left" if words or index == 0 else "right"
        rich_table.add_column(name, justify=justify, overflow="fold", width=width)
    for row in table.rows:
        rich_table.add_row(*(Text(printable(cell)) for cell in row[:shown]))
    console.print(rich_table)
    if shown < len(table.head):
        say(f"a wider terminal, or a file, shows also: {', '.join(table.head[shown:])}")


def spans(numbers: Sequence[int]) -> str:
    """Numbers in order, in words.

    >>> spans([0, 2, 3, 4, 8])
    '0, 2-4, 8'
    """
    found: list[list[int]] = []
    for one in numbers:
        if found and found[-1][1] == one - 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found[:SPANS]]
    return ", ".join(shown + ["..."] * (len(found) > SPANS))


def _fitting(table: Table, width: int) -> int:
    """How many columns fit without breaking words; at least two."""
    widths = [_longest(table, index) + GAP for index in range(len(table.head))]
    return next((count for count in range(len(widths), 2, -1) if sum(widths[:count]) <= width), min(2, len(widths)))


def _widths(table: Table, count: int, width: int) -> list[int]:
    """Of the first columns, each at least as wide as its longest word; what is left goes to those that miss least."""
    widths = [_longest(table, index) for index in range(count)]
    missing = [max(len(row[i]) for row in (table.head, *table.rows)) - widths[i] for i in range(count)]
    left = max(0, width - sum(widths) - GAP * count)
    for index in sorted(range(count), key=missing.__getitem__):
        more = min(missing[index], left)
        widths[index], left = widths[index] + more, left - more
    return widths


def _longest(table: Table, index: int) -> int:
    """Characters of the longest word of a column; of the first, which has names, of the longest name."""
    cells = [table.head[index], *(row[index] for row in table.rows)]
    return max(len(word) for cell in cells for word in ([cell] if index == 0 else cell.split() or [""]))
