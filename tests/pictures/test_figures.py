"""Figures of what people bring: any name, any number of pictures; the words on them are those that were given."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from unsample import pictures as plotting
from unsample.pictures.edit_sheet import edit_sheet

NAMES = ["$x_{$.jpg", "$\\frac{$.jpg", "a^b_c$$.jpg", "a" * 5000, "50$ or 60$.jpg", "tab\\there.jpg"]


def images(count=3, side=8):
    return torch.zeros(count, 3, side, side)


@pytest.fixture
def written(monkeypatch):
    """All words of the figures that are drawn."""
    found, clear = [], Figure.clear

    def cleared(figure, *given, **named):
        found.extend(text.get_text() for text in figure.findobj(Text) if text.get_text())
        clear(figure, *given, **named)

    monkeypatch.setattr(Figure, "clear", cleared)
    return found


def drawn(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        return picture.size


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_every_name_can_be_drawn(name):
    latents = [plotting.LatentColumns(name[:30], images(), images())]
    drawn(plotting.overview(images(), [name] * 3, latents))
    drawn(edit_sheet([name] * 3, {"picture": images(), name[:30]: images()}))
    drawn(plotting.sheet(images(), [name] * 3))
    drawn(plotting.strip(images(), {0: name, 2: name}))
    panel = plotting.Panel(name[:30], [plotting.Curve(name[:30], (1, 10, 100), (1, 10, 100))] * 2, name[:30], "up", log="xy")
    assert (b"DejaVuSans-3f" in plotting.curves(panel).svg) == ("\\" in name)  # numbers of axes keep their formulas
    plotting.picture_rows([plotting.PictureRow(name[:30], images())])
    plotting.bars({name[:30]: {name[:30]: plotting.Bar(1.0)}}, name[:30])


def test_what_is_left_out_is_said(written):
    drawn(plotting.overview(images(20), list("abcdefghijklmnopqrst"), [plotting.LatentColumns("x", images(20))]))
    assert "8 of 20 pictures" in written
    drawn(plotting.sheet(images(100)))
    assert "64 of 100 images" in written
    drawn(edit_sheet(["a"] * 9, {"picture": images(9)}))
    assert written.count("8 of 9 pictures") == 1
    written.clear()
    drawn(plotting.sheet(images(4)))
    assert not written


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_overview_of_few_pictures_has_no_gaps(monkeypatch, count):
    """Nor ticks of its colour scale that touch; its titles are whole."""
    clear = Figure.clear

    def cleared(figure, *given, **named):
        if figure.axes:  # at first there are none
            *axes, bar = figure.axes
            boxes = [axis.get_window_extent() for axis in axes[::7]]
            assert all(above.y0 - below.y1 < 0.15 * above.height for above, below in pairwise(boxes))
            assert max(axis.title.get_window_extent().y1 for axis in axes) <= figure.bbox.height
            assert [text.get_text().replace("\N{MINUS SIGN}", "-") for text in bar.get_xticklabels()] == ["-1", "0", "1"]
        clear(figure, *given, **named)

    monkeypatch.setattr(Figure, "clear", cleared)
    drawn(
        plotting.overview(
            images(count), ["a"] * count, [plotting.LatentColumns("forward start 2", images(count), images(count))]
        )
    )


def test_wide_sheets_end(written):
    columns = {f"{i}": images(2) for i in range(500)}
    notes = [[f"{i}" for i in range(498)]] * 2
    drawn(edit_sheet(["a", "b"], columns, notes))
    assert "32 of 500 columns" in written
    assert written.count("29") == 1 + 2  # a title, and the note of column 31 in both rows
    drawn(plotting.overview(images(1), ["a"], [plotting.LatentColumns(f"{i}", images(1)) for i in range(40)]))
    assert "8 of 40 inversions" in written
    plotting.picture_rows([plotting.PictureRow("a", images(300))])
    assert "32 of 300 columns" in written


def test_long_strips_and_wide_grids_end(written):
    drawn(plotting.strip(images(3000), {0: "first", 2999: "last", 7: "between"}))
    assert "256 of 3000 frames" in written
    assert {"first", "last"} <= set(written)
    written.clear()
    drawn(plotting.strip(images(40 * 50), {0: "a", 49: "b", 39 * 50: "c", 1999: "d"}, columns=50))
    assert {"256 of 2000 frames", "a", "b", "c", "d"} <= set(written)
