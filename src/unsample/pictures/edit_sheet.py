"""Photographs beside what was made of them, a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from ._canvas import COLUMNS, panels, png, say_left_out, short
from .overview import ROWS
from .read import to_bytes

PANEL, NOTE, LINE, MARGIN = 1.25, 0.16, 0.13, 0.16
"""Inches: the width of a picture, the height of a note and of a line of a title, and what is above and below."""


def edit_sheet(
    names: Sequence[str], columns: Mapping[str, Tensor], notes: Sequence[Sequence[str]] = (), *, rows: int = ROWS
) -> bytes:
    """A grid of pictures, one row per photograph; as PNG bytes.

    Args:
        names: One per row.
        columns: Title -> pictures of shape (batch, channels, height, width) in [-1, 1], one per row.
        notes: For each row what to write under its last pictures.
        rows: At most so many are drawn; of columns at most 32.
    """
    count, (height, width) = min(rows, len(names)), next(iter(columns.values())).shape[-2:]
    every, columns = len(columns), dict(list(columns.items())[:COLUMNS])
    figure, axes, canvas = panels(count, len(columns), PANEL)
    for row in range(count):
        for axis, images in zip(axes[row], columns.values(), strict=True):
            axis.imshow(to_bytes(images[row]), interpolation="nearest")
        axes[row][0].set_ylabel(short(names[row], min(16, max(4, 14 * height // width))), fontsize=9)
        if notes:
            for axis, note in zip(axes[row][every - len(notes[row]) :], notes[row], strict=False):
                axis.set_xlabel(note, fontsize=7)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=8)
    lines = max(title.count("\n") + 1 for title in columns)
    said = say_left_out(figure, (count, len(names), "pictures"), (len(columns), every, "columns"))
    figure.set_figheight(count * (PANEL * height / width + NOTE * bool(notes)) + LINE * lines + MARGIN + said)
    return png(figure, canvas)
