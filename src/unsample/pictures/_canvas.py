"""Empty figures, and figures as bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Drawing"]


@dataclass(frozen=True)
class Drawing:
    """A finished figure as the bytes of a PNG and of an SVG file."""

    png: bytes = field(repr=False)
    svg: bytes = field(repr=False)


def blank(width: float, height: float) -> tuple[Any, Any]:
    """An empty figure of so many inches, and its canvas."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, FigureCanvasAgg(figure)


def panels(rows: int, columns: int, scale: float = 1.25, margin: float = 1.1) -> tuple[Any, Any, Any]:
    """A figure of bare panels for pictures, its axes [rows, columns], and its canvas."""
    figure, canvas = blank(scale * columns + 0.4, scale * rows + margin)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for axis in axes.ravel():
        bare(axis)
    return figure, axes, canvas


def bare(axis: Any) -> None:
    """Take ticks and frame off an axis."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def png(figure: Any, canvas: Any) -> bytes:
    """The figure as a PNG file; it is empty afterwards."""
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    figure.clear()
    return buffer.getvalue()


def drawing(figure: Any, canvas: Any) -> Drawing:
    """The figure as PNG and SVG, the same bytes every time; it is empty afterwards."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "unsample", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Drawing(png(figure, canvas), buffer.getvalue())


def short(name: str, length: int = 16) -> str:
    """A file's name without its ending, cut to `length`."""
    stem = name.rsplit(".", 1)[0]
    return stem if len(stem) <= length else stem[: length - 1] + "…"


def columns_of(count: int, most: int) -> tuple[int, int]:
    """Rows and columns that hold `count` panels, `most` side by side."""
    columns = min(most, count)
    return -(-count // columns), columns


Titles = Sequence[str] | None
