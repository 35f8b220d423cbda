"""Intervals row by row: nothing is drawn beyond its limits, and what is missing is left out."""

from __future__ import annotations

import math

from unsample.pictures import Bar, Column, forest
from unsample.pictures._canvas import blank
from unsample.pictures.forest import _fill

ROWS = {
    "first": {"a": Bar(0.5, 0.4, 0.6), "b": Bar(17.0, 16.0, 18.0)},
    "second": {"a": Bar(math.nan), "b": Bar(-3.0)},
    "third": {"a": Bar(0.9)},
}


def test_values_beyond_the_limits_are_arrow_heads_there_with_their_values():
    axis = blank(4, 3)[0].subplots()
    _fill(axis, Column("std", ROWS, (0.9, 1.1), (0.0, 1.5)), list(ROWS), ["a", "b"])
    places = [(line.get_marker(), float(line.get_xdata()[0])) for line in axis.lines if line.get_marker() != "None"]
    assert places == [("o", 0.5), (">", 1.5), ("<", 0.0), ("o", 0.9)]
    assert [text.get_text() for text in axis.texts] == ["17", "-3"]
    assert next(list(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2) == [0.4, 0.6]


def test_a_figure_is_the_same_bytes_every_time():
    columns = [Column("std", ROWS, {"first": (0.9, 1.1)}, mark=1.0), Column("r", {"second": {"b": Bar(0.2, 0.1, 0.3)}})]
    first, again = forest(columns), forest(columns)
    assert first.png == again.png
    assert first.svg == again.svg
    assert first.png.startswith(b"\x89PNG")
