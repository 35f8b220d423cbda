"""Charts: curves, bars, heat maps, rows of pictures and triangles. True noise is always drawn in grey."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ._canvas import COLUMNS, Drawing, Span, bare, blank, drawing, grid_of, null_of, null_patch, say_left_out
from .overview import latent_picture
from .read import to_bytes

Values = Sequence[float]
Angles = tuple[float, float, float]

NOISE = "0.6"
"""The grey of true noise."""

PANEL = 4.4
"""Width of the axes of curves, in inches."""

FEW = 10
"""Up to so many values on a logarithmic axis are its ticks."""


@dataclass(frozen=True)
class Curve:
    """A line with the ends of its intervals, if it has any; a curve called `true noise` is drawn as such."""

    name: str
    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True)
class Panel:
    """Axes with curves.

    Attributes:
        title: Above.
        curves: Drawn in this order, colours by position.
        across: Label of the horizontal axis.
        up: Label of the vertical axis.
        null: What true noise takes: low and high, shaded.
        log: Axes that are logarithmic: "", "x", "y" or "xy"; a horizontal one with a 0 is so from 1 on.
        marks: Whether each value is marked.
    """

    title: str
    curves: Sequence[Curve]
    across: str
    up: str
    null: Span | None = None
    log: str = ""
    marks: bool = True


@dataclass(frozen=True)
class Bar:
    """A value with its interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, eq=False)
class PictureRow:
    """A row of pictures.

    Attributes:
        title: At its left.
        values: Shape (count, channels, height, width).
        kind: `image` in [-1, 1], `latent` in units of true noise, `map`, from 0 (white) to `top` (black), or `excess`, from
            -`top` (blue) through 0 (white) to `top` (red).
        top: Of a map; its largest value if None.
    """

    title: str
    values: Tensor = field(repr=False)
    kind: str = "image"
    top: float | None = None


def curves(*panels: Panel) -> Drawing:
    """Panels of curves, at most three side by side, with intervals shaded."""
    figure, axes, canvas = grid_of(len(panels), 3, PANEL, 3.4, extra=0.6)
    for axis, panel in zip(axes, panels, strict=True):
        _fill(axis, panel)
    return drawing(figure, canvas)


def _fill(axis: Any, panel: Panel) -> None:
    if panel.null:
        axis.axhspan(*panel.null, color="0.85", zorder=0, label="true noise, 95 %")
    colors = iter(f"C{i}" for i in range(len(panel.curves)))
    for curve in panel.curves:
        color = NOISE if curve.name == "true noise" else next(colors)
        marker = "o" if panel.marks and len(curve.x) < 40 else None
        axis.plot(curve.x, curve.y, color=color, marker=marker, markersize=3.5, linewidth=1.3, label=curve.name)
        if curve.low is not None and curve.high is not None:
            axis.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    _scale(axis, panel)
    axis.set_title(textwrap.fill(panel.title, 60), fontsize=9)
    axis.set_xlabel(panel.across, fontsize=8)
    axis.set_ylabel(panel.up, fontsize=8)
    axis.tick_params(which="both", labelsize=7)
    if len(axis.get_legend_handles_labels()[1]) > 1:
        axis.legend(fontsize=7, frameon=False)


def _scale(axis: Any, panel: Panel) -> None:
    """Make axes logarithmic, with ticks at the values if there are few, and plain numbers within a power of ten."""
    if "x" in panel.log:
        places = sorted({x for curve in panel.curves for x in curve.x})
        if 0 in places:
            axis.set_xscale("symlog", linthresh=1, linscale=0.3)
        else:
            axis.set_xscale("log")
        if len(places) <= FEW:
            axis.set_xticks(places, [f"{x:g}" for x in places])
            axis.set_xticks([], minor=True)
    if "y" in panel.log:
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        if high < 10 * low:
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")


def bars(groups: Mapping[str, Mapping[str, Bar]], up: str, null: Span | Mapping[str, Span] | None = None) -> Drawing:
    """Groups of bars, one colour a name, with intervals.

    Args:
        groups: Group -> name -> bar. A name may be missing from a group.
        up: Label of the vertical axis.
        null: What true noise takes, the same everywhere or by group; drawn as a grey band behind the group.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, canvas = blank(max(5.0, 0.9 + 0.45 * len(names) * len(groups) + 0.5 * len(groups)), 3.6)
    axis, width = figure.subplots(), 0.8 / len(names)
    for i, (group, values) in enumerate(groups.items()):
        span = null_of(null, group)
        if span:
            axis.fill_between([i - 0.46, i + 0.46], *span, color="0.8", zorder=0, linewidth=0)
            axis.plot([i - 0.46, i + 0.46], [sum(span) / 2] * 2, color="0.5", linewidth=1, linestyle="--", zorder=3)
        for j, name in enumerate(names):
            if name not in values or math.isnan(values[name].value):
                continue
            bar, place = values[name], i + (j - (len(names) - 1) / 2) * width
            reach = _reach(bar)
            axis.bar(place, bar.value, width * 0.92, color=f"C{j}", alpha=0.85, yerr=reach, ecolor="0.2", capsize=2, zorder=2)
    axis.set_xticks(range(len(groups)), [textwrap.fill(group, 22) for group in groups], fontsize=8)
    axis.set_ylabel(up, fontsize=8)
    axis.tick_params(axis="y", labelsize=7)
    from matplotlib.patches import Patch

    handles = [Patch(color=f"C{j}", alpha=0.85, label=name) for j, name in enumerate(names)]
    handles += [null_patch("0.8")] if null else []
    figure.legend(handles=handles, loc="outside right upper", fontsize=7, frameon=False)
    return drawing(figure, canvas)


def _reach(bar: Bar) -> npt.NDArray[Any] | None:
    if bar.low is None or bar.high is None or math.isnan(bar.low):
        return None
    return np.array([[max(bar.value - bar.low, 0)], [max(bar.high - bar.value, 0)]])


def heatmaps(
    panels: Mapping[str, Tensor],
    across: str,
    up: str,
    *,
    extent: tuple[float, float, float, float],
    around: float | None = None,
    colours: str = "",
) -> Drawing:
    """Maps side by side under one colour scale; values around `around` are white, or the scale runs from low to high.

    Args:
        panels: Title -> values [rows, columns], the first row at the bottom.
        across: Label of the horizontal axis.
        up: Label of the vertical axis.
        extent: Left, right, bottom, top.
        around: Middle of a two-sided colour scale.
        colours: What the colours are, beside their scale.
    """
    tables = {title: values.double().cpu().numpy() for title, values in panels.items()}
    every = np.concatenate([table.ravel() for table in tables.values()])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    how: dict[str, Any] = {"cmap": "viridis", "vmin": low, "vmax": high}
    if around is not None:
        reach = max(high - around, around - low)
        how = {"cmap": "RdBu_r", "vmin": around - reach, "vmax": around + reach}
    figure, axes, canvas = grid_of(len(tables), 4, 3.2, 3.2, extra=0.9)
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        shown = axis.imshow(table, origin="lower", aspect="auto", extent=extent, interpolation="nearest", **how)
        axis.set_title(textwrap.fill(title, 40), fontsize=9)
        axis.set_xlabel(across, fontsize=8)
        axis.set_ylabel(up, fontsize=8)
        axis.tick_params(labelsize=7)
    scale = figure.colorbar(shown, ax=figure.axes, fraction=0.05, pad=0.02)
    scale.ax.tick_params(labelsize=7)
    scale.set_label(colours, fontsize=8)
    return drawing(figure, canvas)


def picture_rows(rows: Sequence[PictureRow]) -> Drawing:
    """Rows of pictures, one under the other, their columns the same items."""
    every = max(len(row.values) for row in rows)
    count = min(every, COLUMNS)
    figure, canvas = blank(1.15 * count + 1.5, 1.15 * len(rows) + 0.3)
    say_left_out(figure, (count, every, "columns"))
    axes = figure.subplots(len(rows), count, squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    for axis in axes.ravel():
        bare(axis)
    for line, row in zip(axes, rows, strict=True):
        line[0].set_ylabel(textwrap.fill(row.title, 14), fontsize=8, rotation=0, ha="right", va="center")
        top = row.top or float(row.values.max())
        for axis, value in zip(line, row.values, strict=False):
            if row.kind in ("map", "excess"):
                low, colors = (0, "Greys") if row.kind == "map" else (-top, "RdBu_r")
                axis.imshow(value.float().mean(0).cpu().numpy(), cmap=colors, vmin=low, vmax=top, interpolation="nearest")
            else:
                axis.imshow(to_bytes(value) if row.kind == "image" else latent_picture(value), interpolation="nearest")
    return drawing(figure, canvas)


def triangles(named: Mapping[str, Angles]) -> Drawing:
    """Triangles of image, noise and latent from their angles in degrees, the side from noise to image being the same."""
    figure, axes, canvas = grid_of(len(named), 4, 2.9, 2.9)
    for axis, (title, (image, noise, latent)) in zip(axes, named.items(), strict=True):
        bare(axis)
        side = math.sin(math.radians(image)) / math.sin(math.radians(latent))  # from noise to latent
        tip = (side * math.cos(math.radians(noise)), side * math.sin(math.radians(noise)))
        corners = {"noise": ((0.0, 0.0), noise), "image": ((1.0, 0.0), image), "latent": (tip, latent)}
        axis.fill(
            *zip(*(place for place, _ in corners.values()), strict=True), facecolor="0.93", edgecolor="C0", linewidth=1.3
        )
        for name, (place, angle) in corners.items():
            how: dict[str, Any] = {"ha": "center", "va": "bottom" if name == "latent" else "top", "fontsize": 8}
            axis.annotate(
                f"{name}\n{angle:.0f}°", place, (0, 4 if name == "latent" else -4), textcoords="offset points", **how
            )
        axis.set_title(textwrap.fill(title, 30), fontsize=9)
        axis.set_aspect("equal", adjustable="datalim")  # panels of one size, whose titles keep clear of the triangles
        axis.margins(0.25, 0.4)
    return drawing(figure, canvas)
