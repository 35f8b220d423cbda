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


def test_the_line_of_the_front_has_every_point_on_or_below_it():
    points = [(0.75, 97.0), (0.93, 37.5), (0.95, 32.0), (1.015, 31.0), (1.02, 47.7), (1.3, 20.0)]
    front = [(min(max(x, 0.7), 1.4), min(y, 60.0)) for i, (x, y) in enumerate(points) if i in naive_front(points)]
    _, _, axis = plane._plane("across", "up", 1.0, None)
    axis.set_xlim(0.6, 1.4)
    before = len(axis.lines)
    plane._draw_front(axis, front, 1.0, "C0", "front")
    for line in axis.lines[before:]:
        x, y = (np.asarray(values, dtype=float) for values in line.get_data())
        for place, height in points:
            mirrored = place if (place - 1) * (x[-1] - 1) > 0 else 2 - place
            reached = [h for at, h in zip(x, y, strict=True) if abs(at - 1) <= abs(mirrored - 1) + 1e-12]
            assert min(height, 60.0) <= max(reached)
    assert axis.get_xlim() == (0.6, 1.4)


def test_the_line_of_the_front_leaves_no_tick_at_an_edge():
    """The mirror image of a point may lie beyond the picture: its step was drawn back to the edge."""
    _, _, axis = plane._plane("across", "up", 1.0, None)
    axis.set_xlim(0.4, 1.2)
    lines = plane._draw_front(axis, [(0.5, 40.0), (0.9, 30.0)], 1.0, "C0", "front")
    assert lines[1] == [(1.1, 30.0), (1.2, 30.0)]
    assert lines[0][-1] == (0.4, 40.0)
    assert all(0.4 <= x <= 1.2 for line in lines for x, _ in line)


def test_names_are_written_beside_the_line_of_the_front_not_on_it():
    figure, canvas, axis = plane._plane("across", "up", 1.0, None)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    line = [(0.5, 0.5), (1.0, 0.5)]
    plane._label(figure, canvas, axis, [("a name", (0.5, 0.5), False)], [line])
    (box,) = (text.get_window_extent() for text in figure.texts)
    left, height = axis.transData.transform(line[0])
    assert box.y0 > height or box.y1 < height or box.x1 < left


def test_one_front_has_one_line(monkeypatch):
    """The second hid the first."""
    drawn, real = {}, plotting.tradeoff
    monkeypatch.setattr(plotting, "tradeoff", lambda *_, **how: drawn.update(how) or real(*_, **how))
    compared = Comparison(found([(0.98, 30.0), (0.9, 40.0)]), 50, 4)
    assert compared.pareto == compared.pareto_unaided
    compared.picture()
    assert len(drawn["fronts"]) == 1
