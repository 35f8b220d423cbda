"""Trade-off plots: named points in a plane, such as reconstruction against closeness to true noise."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._canvas import Drawing, Span, blank, drawing

Pixels = npt.NDArray[Any]
Point = tuple[float, float]

UNLIMITED = (-math.inf, math.inf)
FRONTS, OTHER = ("C0", "C1"), "0.6"


def tradeoff(
    points: Mapping[str, Point],
    across: str,
    up: str,
    best: float,
    *,
    bars: Mapping[str, tuple[Span | None, Span | None]] | None = None,
    fronts: Mapping[str, Sequence[str]] | None = None,
    band: Span | None = None,
    limits: tuple[Span, Span] = (UNLIMITED, UNLIMITED),
) -> Drawing:
    """Named points in a plane and the fronts of those that none beats.

    The points of a front are named on the picture. Its line is the most that its points reach at a distance from true noise or
    less, on both sides of it. The other points are small, grey and numbered, and the legend names them.

    Args:
        points: Name -> (value across, value up).
        across: What the horizontal axis shows.
        up: What the vertical axis shows.
        best: Value across of true noise.
        bars: Name -> intervals across and up, None where there is none.
        fronts: One or two, title -> names of its points; by default every point is named, and there is no line.
        band: The values across that true noise takes, shaded.
        limits: Lowest and highest value drawn, across and up. A point beyond is an arrow head at the limit, with its value.
    """
    named = [list(points)] if fronts is None else list(fronts.values())
    colors = {name: color for names, color in reversed(list(zip(named, FRONTS, strict=False))) for name in names}
    numbers = {name: str(i) for i, name in enumerate((name for name in points if name not in colors), 1)}
    figure, canvas, axis = _plane(across, up, best, band, height=max(7, 0.16 * len(numbers) + 1))
    places = {name: _within(point, limits) for name, point in points.items()}
    labels = {name: _with_value(name, point, limits) for name, point in points.items()}
    for name, place in places.items():
        color, size = colors.get(name, OTHER), 4 if name in numbers else 8
        for line in _bars(place, (bars or {}).get(name, (None, None)), limits):
            axis.plot(*line, color=color, linewidth=3, alpha=0.25, solid_capstyle="butt", zorder=1)  # unlike a front's line
        label = f"{numbers[name]}  {labels[name]}" if name in numbers else None
        axis.plot(*place, _marker(points[name], limits), color=color, markersize=size, zorder=size, label=label)
    axis.margins(0.08)
    corners: list[list[Point]] = []
    for (title, names), color in zip((fronts or {}).items(), FRONTS, strict=False):
        corners += _draw_front(axis, [places[name] for name in names], best, color, title)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=7, frameon=False, handlelength=0.7, labelcolor="0.3")
    texts = [(numbers.get(name, labels[name]), places[name], name in numbers) for name in [*colors, *numbers]]
    _label(figure, canvas, axis, texts, corners)
    return drawing(figure, canvas)


def _plane(across: str, up: str, best: float, band: Span | None, height: float = 7) -> tuple[Any, Any, Any]:
    """A figure, its canvas, and its axes with true noise drawn in."""
    figure, canvas = blank(12, height)
    axis = figure.subplots()
    if band:
        axis.axvspan(*band, color="0.88", zorder=0)
    axis.axvline(best, color="0.6", linestyle="--", linewidth=1, zorder=0)
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom"}
    axis.annotate("true noise", (best, 1.005), fontsize=8, color="0.4", **above)
    axis.set_xlabel(textwrap.fill(across, 100))
    axis.set_ylabel(up)
    return figure, canvas, axis


def _draw_front(axis: Any, front: Sequence[Point], best: float, color: str, title: str) -> list[list[Point]]:
    """Steps through the points in the order of their distance from `best`, and their mirror image, to the picture's edges.

    Returns the corners of both lines.
    """
    edges, drawn = axis.get_xlim(), list[list[Point]]()
    steps = sorted((abs(x - best), y) for x, y in front)
    for side, edge in zip((-1, 1), edges, strict=True) if steps else ():
        reach = max(side * (edge - best), steps[0][0])  # a mirrored point beyond the edge would leave a tick there
        x, y = zip(*((best + side * distance, height) for distance, height in steps if distance <= reach), strict=True)
        line = list(zip(np.repeat([*x, edge], 2)[1:].tolist(), np.repeat(y, 2).tolist(), strict=False))
        how: dict[str, Any] = {"color": color, "linewidth": 1.2, "alpha": 0.7, "zorder": 2}
        axis.plot(*zip(*line, strict=True), label=title if side > 0 else None, **how)
        drawn.append(line)
    axis.set_xlim(edges)
    return drawn


def _within(point: Point, limits: tuple[Span, Span]) -> Point:
    (left, right), (bottom, top) = limits
    return min(max(point[0], left), right), min(max(point[1], bottom), top)


def _marker(point: Point, limits: tuple[Span, Span]) -> str:
    """A disc, or an arrow head towards a point outside the picture."""
    (left, right), (bottom, top) = limits
    outside = {"^": point[1] > top, "v": point[1] < bottom, "<": point[0] < left, ">": point[0] > right}
    return next((marker for marker, is_out in outside.items() if is_out), "o")


def _with_value(name: str, point: Point, limits: tuple[Span, Span]) -> str:
    """The name, with the values that the picture cannot show."""
    beyond = [f"{value:.3g}" for value, (low, high) in zip(point, limits, strict=True) if not low <= value <= high]
    return f"{name} ({', '.join(beyond)})" if beyond else name


def _bars(place: Point, spans: tuple[Span | None, Span | None], limits: tuple[Span, Span]) -> list[tuple[Span, Span]]:
    """The intervals of a point as lines (x values, y values), cut at the limits."""
    (x, y), (across, up), (sides, ends) = place, spans, limits
    lines: list[tuple[Span, Span]] = []
    if across:
        lines.append((_cut(across, sides), (y, y)))
    if up:
        lines.append(((x, x), _cut(up, ends)))
    return lines


def _cut(span: Span, limit: Span) -> Span:
    low, high = limit
    return min(max(span[0], low), high), min(max(span[1], low), high)


def _label(
    figure: Any, canvas: Any, axis: Any, texts: Sequence[tuple[str, Point, bool]], lines: Sequence[Sequence[Point]] = ()
) -> None:
    """Writes each text beside its point, where it hides least of lines and what was there before; small ones in grey."""
    canvas.draw()  # only then does the layout hold, and with it places in pixels
    figure.set_layout_engine("none")
    dots = axis.transData.transform([place for _, place, _ in texts]) if texts else np.empty((0, 2))
    radii = np.array([[4.0 if small else 7.0] for _, _, small in texts]).reshape(-1, 1)
    taken, frame = np.hstack([dots - radii, dots + radii]), axis.get_window_extent().extents[None]
    for line in lines:
        corners = axis.transData.transform(line)
        ends = np.stack([corners[:-1], corners[1:]])
        taken = np.vstack([taken, np.hstack([ends.min(0) - 1, ends.max(0) + 1])])
    for (text, _, small), dot in zip(texts, dots, strict=True):
        paper = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.3}
        how: dict[str, Any] = {"va": "bottom", "zorder": 5, "bbox": paper}
        written = figure.text(0, 0, text, fontsize=6.5 if small else 9, color="0.35" if small else "black", **how)
        size = written.get_window_extent().size
        costs = {
            box: round(10 * (_shared(box, taken).sum() + size.prod() - _shared(box, frame).sum()) + gap, 3)
            for gap in (8, 12, 17, 24, 34, 46, 60)
            for box in _boxes(dot, size, gap - 3 * small)
        }
        box = min(costs, key=costs.__getitem__)
        written.set_position(np.array(box[:2]) / figure.bbox.size)  # a fraction, since PNG and SVG differ in resolution
        taken = np.vstack([taken, box])


def _boxes(dot: Pixels, size: Pixels, gap: float) -> list[tuple[float, ...]]:
    """Places of a text around a point: (left, bottom, right, top) in pixels."""
    angles = np.deg2rad([0, 180, 90, 270, 45, 315, 135, 225])
    centres = dot + np.stack([np.cos(angles), np.sin(angles)], axis=-1) * (size / 2 + gap)
    return [tuple(box) for box in np.hstack([centres - size / 2, centres + size / 2]).tolist()]


def _shared(box: tuple[float, ...], others: Pixels) -> Pixels:
    """Area that a box shares with each of others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=1))
