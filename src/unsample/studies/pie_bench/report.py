"""Report of a benchmark: tables with costs, differences between candidates, pictures, an HTML page and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import Any

import torch
from torch import Tensor

from ...core.batching import OnStep
from ...diagnostics.intervals import FEWEST_IMAGES
from ...errors import counted
from ...pictures.edit_sheet import edit_sheet
from ...runs.directory import Run
from ...runs.html import Block, Heading, Picture, Table, page
from .benchmark import Benchmark
from .layout import Entry, without_brackets
from .running import SCORES, read_scores, run_benchmark
from .scores import Scores

SHOWN = 10
"""Failures that are listed one by one; `scores.json` has all."""

WIDTH = 21
"""Letters above a picture of the sheet."""

Costs = Mapping[str, Any]


def benchmarked(bench: Benchmark, run: Run, on_step: OnStep) -> tuple[Scores, Costs]:
    """Run a benchmark to its end and write its report; the scores, and title -> steps, evaluations per picture and seconds.

    A complete run is read back. `on_step` is called with moves down.

    Raises:
        ArgumentError: A candidate that cannot edit with these settings, or an editor that can edit no entry.
        RunError: A complete run without its scores.
    """
    if run.complete:
        return read_scores(run), run.manifest.costs
    bench.check()
    scores, first, spent = run_benchmark(bench, run, on_step)
    _write(run, scores, spent, bench.editable.entries, first)
    run.finish({}, {"cost": spent})
    return scores, spent


def table_of(scores: Scores, costs: Costs) -> Table:
    """The means, with N and each candidate's network evaluations, up and down together; an editor's include the source's."""
    made = scores.table(empty=False)
    spent = {row: costs.get(row, {}) for row in scores.values}
    rows = [(row[0], str(spent[row[0]].get("steps", "")), str(spent[row[0]].get("nfe", "")), *row[1:]) for row in made.rows]
    return Table((made.head[0], "N", "NFE", *made.head[1:]), tuple(rows))


def by_type(scores: Scores) -> Table:
    """The means of each type of edit."""
    tables = {kind: own.table() for kind, own in scores.by_type().items()}
    kept = scores.table(empty=False).head
    rows = [
        (kind, *(cell for name, cell in zip(made.head, row, strict=True) if name in kept))
        for kind, made in tables.items()
        for row in made.rows
    ]
    return Table(("type of edit", *kept), tuple(rows))


def differences(scores: Scores, costs: Costs) -> Table | None:
    """Each candidate less the first, over entries that both have; None for a single candidate."""
    first, *others = costs
    return scores.against(first, others) if others else None


def notes(scores: Scores) -> Iterator[str]:
    """Lines below the table: why numbers are missing, and the first of the entries and edits that are left out."""
    lines = list(scores.notes())
    yield from lines[: len(scores.reasons) + SHOWN]
    if (more := len(lines) - len(scores.reasons) - SHOWN) > 0:
        yield f"... and {more} more, in {SCORES}"


def as_dict(scores: Scores, costs: Costs) -> dict[str, Any]:
    """Everything for `json.dumps`: the scores, the means of each type of edit, and costs."""
    kinds = {kind: own.to_dict() for kind, own in scores.by_type().items()}
    return scores.to_dict() | {
        "cost": dict(costs),
        "by_type": {kind: {"entries": own["entries"], "rows": own["rows"]} for kind, own in kinds.items()},
    }


def _write(run: Run, scores: Scores, costs: Costs, entries: Sequence[Entry], first: Sequence[Mapping[str, Tensor]]) -> None:
    """`overview.png`, `table.md`, `report.html` and `scores.json`."""
    sheet = _sheet(entries, first, list(scores.values))
    apart = differences(scores, costs)
    run.write("overview.png", sheet)
    run.write("table.md", _markdown(scores, costs, apart))
    different: list[Block] = [Heading("Differences, entry by entry"), apart] if apart else []
    blocks: list[Block] = [
        f"{scores.entries} entries. The mean over entries, its 95\N{NO-BREAK SPACE}% bootstrap interval (from "
        f"{FEWEST_IMAGES} entries on), how many have the number; NFE are network evaluations per picture, up and down, and "
        "with an attention editor of the source beside it.",
        table_of(scores, costs),
        *notes(scores),
        *different,
        Picture(f"The first {counted(len(first), 'entry', 'entries')}, in the order of the table", sheet, "overview.png"),
        Heading("By type of edit"),
        by_type(scores),
        Heading("Settings"),
        Table(("", ""), tuple((name, str(value)) for name, value in run.manifest.settings.items())),
    ]
    run.write("report.html", page(f"unsample edit-benchmark: {scores.entries} entries", blocks))
    run.write(SCORES, json.dumps(as_dict(scores, costs), indent=1, allow_nan=False) + "\n")


def _markdown(scores: Scores, costs: Costs, apart: Table | None) -> str:
    pieces = [table_of(scores, costs).markdown(), *([apart.markdown()] if apart else []), *notes(scores)]
    return "\n\n".join(pieces) + "\n"


def _sheet(entries: Sequence[Entry], first: Sequence[Mapping[str, Tensor]], rows: Sequence[str]) -> bytes:
    """Entries as rows, rows of the table as columns, grey where an edit failed; both prompts below the picture."""
    nothing = torch.zeros_like(next(iter(first[0].values())))
    columns = {_title(row): torch.cat([shown.get(row, nothing) for shown in first]) for row in rows}
    notes = [
        [_short(entry.source_prompt), f"→ {_short(entry.target_prompt)}", *[""] * (len(columns) - 2)]
        for entry in entries[: len(first)]
    ]
    return edit_sheet([f"{i + 1}" for i in range(len(first))], columns, notes)


def _title(row: str) -> str:
    """The title in lines as wide as a picture: options of a method or an editor may be long."""
    return "\n".join(line for part in row.replace(":", " ").split(", ") for line in wrap(part, WIDTH))


def _short(prompt: str, most: int = 22) -> str:
    words = without_brackets(prompt)
    return words if len(words) <= most else f"{words[: most - 1]}…"
