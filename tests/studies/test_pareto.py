"""The Pareto front of a comparison, and its picture."""

from __future__ import annotations

import io
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unsample import pictures as plotting
from unsample.diagnostics import Diagnosis, Null, Row
from unsample.pictures import plane
from unsample.studies.compare import Candidate, Comparison, Measured, pareto, table

NOISE = Null(1.0, 0.01, 0.98, 1.02)


def found(points):
    """Candidates with these results: std plain and median PSNR."""
    return {Candidate("ddim", "0", i + 1, f"candidate {i}"): measured(*point) for i, point in enumerate(points)}


def measured(std, psnr):
    whiteness = Row("std plain", std, std - 0.02, std + 0.02, NOISE)
    rows = (whiteness, Row("median PSNR", psnr, psnr - 1, psnr + 1), Row("top-20 patch correlation", math.nan))
    return Measured(Diagnosis(4, rows), None, 50, 1.0)


def naive_front(points, cap=60.0):
    """Reference: each against each."""
    places = [(-abs(std - 1), min(psnr, cap)) for std, psnr in points]
    return {i for i, (x, y) in enumerate(places) if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in places)}


# Eighths and a few PSNR, so that ties in one and in both are common; 1 -+ d are equally far from noise.
values = st.tuples(st.integers(0, 12).map(lambda n: 0.25 + n / 8), st.sampled_from([20.0, 30.0, 59.0, 61.0, 120.0, math.inf]))


@given(st.lists(values, max_size=12))
def test_the_front_against_each_with_each(points):
    front = pareto(found(points))
    assert {one.steps - 1 for one in front} == naive_front(points)
    distances = [abs(points[one.steps - 1][0] - 1) for one in front]
    assert distances == sorted(distances)


def test_the_front_is_ordered_from_the_whitest():
    points = [(0.75, 97.0), (0.93, 37.5), (0.95, 32.0), (0.97, 32.5), (1.015, 31.0), (1.02, 47.7), (1.7, 119.0)]
    assert [one.steps - 1 for one in pareto(found(points))] == [4, 5, 0]


def test_a_result_without_plain_areas_or_that_diverged_is_not_compared():
    results = found([(math.nan, 50.0), (0.9, 30.0)])
    results[Candidate("ab", "0", 9, "diverged")] = Measured(None, None, 0, 0.0, "diverged: where")
    assert [one.title for one in pareto(results)] == ["candidate 1"]
    rows = Comparison(results, 50, 4).to_dict()["ways"]
    assert [row["pareto"] for row in rows] == [False, True, False]
    assert rows[0]["std_plain_distance"] is None


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def blue(png):
    """Pixels in the colour of the front."""
    return (np.abs(pixels(png) - np.array([31, 119, 180])).sum(-1) < 30).sum()


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1.0, 30.0)],
        [(0.9, math.inf), (1.1, math.inf)],
        [(math.nan, 30.0)],
        [(0.7 + 0.01 * i, 30 + 17 * math.sin(i) ** 2) for i in range(40)],
    ],
    ids=["none", "one", "exact", "no plain areas", "forty"],
)
def test_any_comparison_has_a_picture(points):
    assert pixels(Comparison(found(points), 50, 4).picture().png).shape == (770, 1320, 3)


def test_only_the_front_has_its_colour():
    points = {"a": (0.9, 30.0), "b": (1.0, 20.0), "c": (0.8, 10.0)}
    assert blue(plotting.tradeoff(points, "across", "up", 1.0, fronts={"front": []}).png) == 0
    assert blue(plotting.tradeoff(points, "across", "up", 1.0, fronts={"front": ["a", "b"]}).png) > 200
    assert blue(plotting.tradeoff(points, "across", "up", 1.0).png) > 60


def test_candidates_that_store_nothing_have_a_front_of_their_own():
    results = found([(0.98, 120.0), (0.9, 40.0), (0.95, 30.0), (0.8, 20.0)])
    first = next(iter(results))
    results[first] = replace(results[first], stored=50.0)
    compared = Comparison(results, 50, 4)
    assert [one.title for one in compared.pareto] == ["candidate 0"]
    assert [one.title for one in compared.pareto_unaided] == ["candidate 2", "candidate 1"]
    assert [row[-1] for row in table(results, {"std plain": "std plain"}).rows] == ["*", "+", "+", "", ""]
    assert [row["pareto_unaided"] for row in compared.to_dict()["ways"]] == [False, True, True, False]


def test_a_point_beyond_the_limits_is_drawn_at_them_with_its_value():
    limits = ((0.5, 1.5), (-math.inf, 60.0))
    assert plane._within((1.7, 119.0), limits) == (1.5, 60.0)
    assert plane._with_value("o-belm", (1.7, 119.0), limits) == "o-belm (1.7, 119)"
    assert plane._with_value("ddim", (0.7, 30.0), limits) == "ddim"
    assert [plane._marker(point, limits) for point in ((0.7, 119.0), (1.7, 30.0), (0.3, 30.0), (1, 30.0))] == list("^><o")
    assert plane._bars((1.5, 60.0), ((1.4, 2.0), None), limits) == [((1.4, 1.5), (60.0, 60.0))]


def test_labels_hide_neither_each_other_nor_the_points():
    """Forty points, half of them in one heap: the boxes of all labels are apart, inside the picture."""
    rng = np.random.default_rng(0)
    places = [*rng.normal([0.98, 30], [0.02, 2], (20, 2)).tolist(), *rng.uniform([0.7, 20], [1.2, 60], (20, 2)).tolist()]
    figure, canvas, axis = plane._plane("across", "up", 1.0, None)
    for x, y in places:
        axis.plot(x, y, "o")
    plane._label(
        figure, canvas, axis, [(f"{i}" if i > 5 else f"a long name {i}", tuple(p), i > 5) for i, p in enumerate(places)]
    )
    boxes = [text.get_window_extent() for text in figure.texts]
    assert len(boxes) == 40
    for a, b in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(wide, high) <= 0 or wide * high < 6  # square pixels, less than a stroke of a digit
    frame = axis.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_every_point_is_in_the_legend_and_the_colours_of_fronts_are_explained(monkeypatch):
    """Those named on the picture were not; and a few far off do not squeeze the others: they are arrow heads at the edge."""
    from matplotlib.figure import Figure

    told, real = {}, Figure.clear

    def cleared(figure, *given, **named):
        for legend in figure.legends:
            told["legend"], told["across"] = [text.get_text() for text in legend.get_texts()], figure.axes[0].get_xlim()
        real(figure, *given, **named)

    monkeypatch.setattr(Figure, "clear", cleared)
    results = found([(0.98, 120.0), (0.9, 40.0), (0.95, 30.0), (0.8, 20.0), (1.1, 20.0), (11.0, 20.0)])
    first = next(iter(results))
    results[first] = replace(results[first], stored=50.0)
    Comparison(results, 50, 4).picture()
    assert told["legend"][0] == "no other is whiter and reconstructs better"
    assert told["legend"][1].endswith("among those that store nothing")
    names = {text.removesuffix(" (120)").split("  ")[-1] for text in told["legend"][2:]}
    assert names == {"candidate 5 (11)", *(f"candidate {i}" for i in range(5))}
    assert told["across"][1] < 1.5


def test_equal_fronts_are_one(monkeypatch):
    drawn, real = {}, plotting.tradeoff
    monkeypatch.setattr(plotting, "tradeoff", lambda *_, **how: drawn.update(how) or real(*_, **how))
    compared = Comparison(found([(0.98, 30.0), (0.9, 40.0)]), 50, 4)
    assert compared.pareto == compared.pareto_unaided
    compared.picture()
    assert len(drawn["fronts"]) == 1
