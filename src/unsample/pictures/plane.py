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

    The points of the first front are discs, those of the second have a ring, and their names are on the picture. The other
    points are small, grey and numbered. The legend names all.

    Args:
        points: Name -> (value across, value up).
        across: What the horizontal axis shows.
        up: What the vertical axis shows.
        best: Value across of true noise.
        bars: Name -> intervals across and up, None where there is none.
        fronts: One or two, title -> names of its points; by default every point is named, without a legend.
        band: The values across that true noise takes, shaded.
        limits: Lowest and highest value drawn, across and up. A point beyond is an arrow head at the limit, with its value.
    """
    named = [list(points)] if fronts is None else list(fronts.values())
    colors = {name: color for names, color in reversed(list(zip(named, FRONTS, strict=False))) for name in names}
    rings = {name: FRONTS[1] for names in named[1:] for name in names}
    numbers = {name: str(i) for i, name in enumerate((name for name in points if name not in colors), 1)}
    figure, canvas, axis = _plane(across, up, best, band, height=max(7, 0.16 * len(numbers) + 1))
    places = {name: _within(point, limits) for name, point in points.items()}
    labels = {name: _with_value(name, point, limits) for name, point in points.items()}
    for name, place in places.items():
        color, size = colors.get(name, OTHER), 4 if name in numbers else 8
        ring, fill = rings.get(name, color), "white" if color == FRONTS[1] else color
        for line in _bars(place, (bars or {}).get(name, (None, None)), limits):
            axis.plot(*line, color=color, linewidth=3, alpha=0.25, solid_capstyle="butt", zorder=1)
        label = None if fronts is None else f"{numbers[name]}  {labels[name]}" if name in numbers else labels[name]
        how: dict[str, Any] = {"markersize": size, "markeredgecolor": ring, "markeredgewidth": 2 if name in rings else 1}
        axis.plot(*place, _marker(points[name], limits), color=fill, zorder=size, label=label, **how)
    axis.margins(0.08)
    if fronts is not None and points:
        _draw_legend(figure, axis, [title for title, names in fronts.items() if names])
    texts = [(numbers.get(name, labels[name]), places[name], name in numbers) for name in [*colors, *numbers]]
    _label(figure, canvas, axis, texts)
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


def _draw_legend(figure: Any, axis: Any, fronts: Sequence[str]) -> None:
    """What the colours of fronts are, then the names of all points."""
    for title, color, fill in zip(fronts, FRONTS, (FRONTS[0], "none"), strict=False):
        axis.plot([], [], "o", color=fill, markeredgecolor=color, markeredgewidth=2, label=title)
    handles, labels = axis.get_legend_handles_labels()
    order = [*range(len(labels) - len(fronts), len(labels)), *range(len(labels) - len(fronts))]
    how: dict[str, Any] = {"loc": "outside right upper", "fontsize": 7, "frameon": False, "labelcolor": "0.3"}
    figure.legend([handles[i] for i in order], [labels[i] for i in order], handlelength=0.7, **how)


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


def _label(figure: Any, canvas: Any, axis: Any, texts: Sequence[tuple[str, Point, bool]]) -> None:
    """Writes each text beside its point, where it hides least of what was there before; small ones in grey."""
    canvas.draw()  # only then does the layout hold, and with it places in pixels
    figure.set_layout_engine("none")
    dots = axis.transData.transform([place for _, place, _ in texts]) if texts else np.empty((0, 2))
    radii = np.array([[4.0 if small else 7.0] for _, _, small in texts]).reshape(-1, 1)
    taken, frame = np.hstack([dots - radii, dots + radii]), axis.get_window_extent().extents[None]
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
