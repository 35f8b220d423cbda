"""Empty figures, figures as bytes, and what several kinds of figure share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from torch import Tensor

from .read import to_bytes

COLUMNS = 32
"""Columns of pictures drawn, at most: the layout of more takes minutes."""

SAID = 0.2
"""Height of a line below a figure, in inches."""

Span = tuple[float, float]
"""Low and high."""


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
    """A figure of bare panels for pictures, its axes [rows, columns], and its canvas; sizes are inches."""
    figure, canvas = blank(scale * columns + 0.4, scale * rows + margin)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for axis in axes.ravel():
        bare(axis)
    return figure, axes, canvas


def grid_of(count: int, most: int, width: float, height: float, extra: float = 0.0) -> tuple[Any, list[Any], Any]:
    """A figure of `count` axes of so many inches each, at most `most` side by side, and its canvas; `extra` widens it."""
    rows, columns = columns_of(count, most)
    figure, canvas = blank(width * columns + extra, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes[:count], canvas


def show_images(axes: Any, images: Tensor, titles: Mapping[int, str]) -> None:
    """Images of shape (batch, channels, height, width) in [-1, 1] on axes, row by row, some of them with a title."""
    for index, axis in enumerate(axes.ravel()):
        if index >= len(images):
            axis.axis("off")
            continue
        axis.imshow(to_bytes(images[index]), interpolation="nearest")
        if index in titles:
            axis.set_title(short(titles[index]), fontsize=8)


def say_left_out(figure: Any, *counts: tuple[int, int, str]) -> float:
    """Write below a figure how many of how many are shown, (shown, in all, of what), where not all are; inches it takes."""
    said = ", ".join(f"{shown} of {count} {what}" for shown, count, what in counts if shown < count)
    if said:
        figure.supxlabel(said, fontsize=8)
    return SAID if said else 0.0


def null_of(null: Span | Mapping[str, Span] | None, name: str) -> Span | None:
    """The range of true noise of one group or row: the same for all, or its own."""
    return null.get(name) if isinstance(null, Mapping) else null


def null_patch(color: str) -> Any:
    """What the legend shows for the range of true noise."""
    from matplotlib.patches import Patch

    return Patch(color=color, label="true noise, 95 %")


def bare(axis: Any) -> None:
    """Take ticks and frame off an axis."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)


def words_as_they_are(figure: Any) -> None:
    """Have a `$` in titles, names and prompts drawn as one: no formulas but those that axes make for their own numbers."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if "$" in text.get_text() and "mathdefault" not in text.get_text():
            text.set_parse_math(False)


def png(figure: Any, canvas: Any) -> bytes:
    """The figure as a PNG file; it is empty afterwards."""
    words_as_they_are(figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    figure.clear()
    return buffer.getvalue()


def drawing(figure: Any, canvas: Any) -> Drawing:
    """The figure as PNG and SVG, the same bytes every time; it is empty afterwards."""
    import matplotlib

    words_as_they_are(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "unsample", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Drawing(png(figure, canvas), buffer.getvalue())


def short(name: str, length: int = 16) -> str:
    """A file's name without its ending, cut to `length`."""
    stem = name.removesuffix(PurePosixPath(name).suffix)
    return stem if len(stem) <= length else stem[: length - 1] + "…"


def columns_of(count: int, most: int) -> tuple[int, int]:
    """Rows and columns that hold `count` panels, `most` side by side."""
    columns = min(most, count)
    return -(-count // columns), columns
