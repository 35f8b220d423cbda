"""E6 against the law of cosines by loops, triangles of known shape, and noise that the null must not tell from noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unsample import pictures as plotting
from unsample.diagnostics import true_noise
from unsample.studies.experiments import e06_triangle as triangle
from unsample.studies.experiments.e06_triangle import TriangleOf

COUNT, STEPS, FORWARD, BINS = 40, 6, 2, 36


pytestmark = pytest.mark.usefixtures("undrawn")


def claims(lab):
    found = TriangleOf(COUNT, STEPS, FORWARD, BINS).run(lab)
    return found.metrics["DDIM latent"], [claim.holds for claim in found.claims]


def opposite(a: float, b: float, c: float) -> float:
    """The angle opposite to side a, by the law of cosines."""
    return math.degrees(math.acos((b * b + c * c - a * a) / (2 * b * c)))


@pytest.mark.parametrize(("name", "forward"), [("DDIM latent", "0"), (f"forward k = {FORWARD}", str(FORWARD))])
def test_angles_and_sides_are_those_of_loops(lab, name, forward):
    pictures = lab.generated(COUNT, STEPS)
    latent = lab.inverted(pictures, forward=forward, steps=STEPS).latent
    rows = []
    for x, n, z in zip(
        pictures.pixels.double().numpy(), pictures.noise.double().numpy(), latent.double().numpy(), strict=True
    ):
        nz, xz, xn = (float(np.sqrt(((a - b) ** 2).sum())) for a, b in ((n, z), (x, z), (x, n)))
        rows.append((opposite(nz, xz, xn), opposite(xz, nz, xn), opposite(xn, nz, xz), nz, xz, xn))
    reported = TriangleOf(COUNT, STEPS, FORWARD, BINS).run(lab).metrics[name]
    assert [row["value"] for row in reported.values()] == pytest.approx(np.mean(rows, axis=0), rel=1e-5)
    for row, values in zip(reported.values(), np.transpose(rows), strict=True):
        error = values.std() / math.sqrt(COUNT)
        assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_right_angle_is_not_taken_for_another(lab, give):
    """Thales: a latent on the sphere over noise and image sees them at a right angle; radii vary by 2 % around it."""
    pictures = lab.generated(COUNT, STEPS)
    middle = (pictures.noise + pictures.pixels) / 2
    toward = true_noise(middle.shape, seed=3)
    toward /= toward.flatten(1).norm(dim=1)[:, None, None, None]
    radius = (pictures.noise - middle).flatten(1).norm(dim=1) * (1 + 0.02 * true_noise((COUNT,), seed=4))
    give(middle + toward * radius[:, None, None, None])
    reported, verdicts = claims(lab)
    assert reported["angle at latent"]["value"] == pytest.approx(90, abs=0.5)
    assert verdicts == [False, True]


def test_other_noise_is_as_near_as_other_noise(lab, give):
    """Null calibration: angles and sides of fresh noise lie in the stated intervals 19 times in 20, so most of 6."""
    give(true_noise(lab.generated(COUNT, STEPS).noise.shape, seed=11))
    reported, verdicts = claims(lab)
    changing = [row for name, row in reported.items() if name != "image to noise"]
    assert sum(row["null"]["low"] <= row["value"] <= row["null"]["high"] for row in changing) >= 4
    assert verdicts[1] is False


def test_unrelated_points_have_the_angles_of_their_squares(lab):
    """Closed form: squared sides s^2 d + d, s^2 d + d and 2 d."""
    pictures = lab.generated(COUNT, STEPS)
    s2 = float(pictures.pixels.double().square().mean())
    found = TriangleOf(COUNT, STEPS, FORWARD, BINS).run(lab)
    side, base = math.sqrt(1 + s2), math.sqrt(2)
    expected = (opposite(base, side, side), opposite(side, side, base), opposite(side, side, base))
    assert found.metrics["all unrelated, closed form"] == pytest.approx(expected, abs=1e-6)
    sides = found.tables["Sides"].rows[-1][1:]
    d = pictures.pixels[0].numel()
    assert [float(text) for text in sides] == pytest.approx([base * d**0.5, side * d**0.5, side * d**0.5], abs=1e-3)


def test_where_no_bins_make_a_triangle_the_mean_is_drawn(lab, monkeypatch):
    drawn = {}
    real = plotting.triangles
    monkeypatch.setattr(triangle, "most_probable_triangle", lambda found, bins: (math.nan,) * 3)
    monkeypatch.setattr(plotting, "triangles", lambda named: drawn.update(named) or real(named))
    found = TriangleOf(8, STEPS, FORWARD, BINS).run(lab)
    assert "too few images" in [row[-1] for row in found.tables["Angles"].rows]
    means = [row["value"] for name, row in found.metrics["DDIM latent"].items() if name.startswith("angle")]
    assert drawn["DDIM latent, mean"] == pytest.approx(means)
    assert sum(means) == pytest.approx(180)
    assert all(figure.drawing.png.startswith(b"\x89PNG") for figure in found.figures)
