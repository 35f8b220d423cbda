"""A forest plot: intervals row by row, in columns side by side: many methods compared in several statistics at once."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._canvas import Drawing, Span, blank, drawing, null_of, null_patch
from .charts import Bar

SPREAD = 0.5
"""Share of a row's height that the values of its names are spread over."""


@dataclass(frozen=True)
class Column:
    """A statistic of every row.

    Attributes:
        title: Its name and unit, below the axis.
        rows: Row -> name -> value with its interval. Either may be missing.
        null: What true noise takes, the same everywhere or by row; shaded.
        limits: Lowest and highest value drawn. One beyond is an arrow head at the limit, with its value.
        mark: A value to compare with: a dashed line.
    """

    title: str
    rows: Mapping[str, Mapping[str, Bar]] = field(repr=False)
    null: Span | Mapping[str, Span] | None = None
    limits: Span = (-math.inf, math.inf)
    mark: float | None = None


def forest(columns: Sequence[Column]) -> Drawing:
    """Columns side by side, their rows the same from top to bottom, one colour a name, a dot with its interval a value."""
    rows = list(dict.fromkeys(row for column in columns for row in column.rows))
    names = list(dict.fromkeys(name for column in columns for values in column.rows.values() for name in values))
    step = 0.13 * len(names) + 0.14
    figure, canvas = blank(2.3 + 2.6 * len(columns), 1.1 + step * len(rows) + 0.17 * len(names))
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axis, column in zip(axes, columns, strict=True):
        _fill(axis, column, rows, names)
    axes[0].set_yticks(range(len(rows)), [textwrap.fill(row, 34) for row in rows], fontsize=8)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    handles = _handles(names, any(column.null for column in columns))
    if len(handles) > 1:
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 4), fontsize=8, frameon=False)
    return drawing(figure, canvas)


def _fill(axis: Any, column: Column, rows: Sequence[str], names: Sequence[str]) -> None:
    for y, row in enumerate(rows):
        span = null_of(column.null, row)
        if span:
            axis.fill_betweenx([y - 0.5, y + 0.5], *span, color="0.82", zorder=0, linewidth=0)
        if y:
            axis.axhline(y - 0.5, color="0.92", linewidth=0.8, zorder=0)
        for j, name in enumerate(names):
            bar = column.rows.get(row, {}).get(name)
            if bar is not None and not math.isnan(bar.value):
                _dot(axis, bar, y + SPREAD * ((j + 0.5) / len(names) - 0.5), f"C{j}", column.limits)
    if column.mark is not None:
        axis.axvline(column.mark, color="0.5", linewidth=1, linestyle="--", zorder=1)
    axis.set_xlabel(textwrap.fill(column.title, 34), fontsize=8)
    axis.tick_params(labelsize=7, length=2)
    axis.margins(x=0.08)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _dot(axis: Any, bar: Bar, y: float, color: str, limits: Span) -> None:
    place, (low, high) = min(max(bar.value, limits[0]), limits[1]), limits
    if place == bar.value and bar.low is not None and bar.high is not None and not math.isnan(bar.low):
        axis.plot([min(max(end, low), high) for end in (bar.low, bar.high)], [y, y], color=color, linewidth=1.4, alpha=0.7)
    axis.plot(place, y, "<" if bar.value < low else ">" if bar.value > high else "o", color=color, markersize=4)
    if place != bar.value:
        side = 1 if bar.value < low else -1
        how: dict[str, Any] = {"va": "center", "ha": "left" if side > 0 else "right", "fontsize": 6.5, "color": color}
        axis.annotate(f"{bar.value:.3g}", (place, y), (5 * side, 0), textcoords="offset points", **how)


def _handles(names: Sequence[str], null: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    how: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4}
    lines: list[Any] = [Line2D([], [], color=f"C{j}", label=name, **how) for j, name in enumerate(names)]
    return lines + ([null_patch("0.82")] if null else [])
