"""E5 against states from scalar gains, distances by loops over images and points, and lines that end in known places."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from unsample.diagnostics import true_noise
from unsample.studies.experiments import e05_line as line
from unsample.studies.experiments.e05_line import Line

from .closed_form import gain

COUNT, STEPS, FORWARD = 30, 6, 2


pytestmark = pytest.mark.usefixtures("undrawn")


def gains(v: float) -> list[float]:
    """What DDIM sampling makes of unit noise in a mode of variance v, at each level from noise to image."""
    moves = [gain(v, level, level - 1, level, STEPS) for level in range(STEPS, 0, -1)]
    return [1.0, *np.cumprod(moves)]


def states(noise: np.ndarray) -> list[np.ndarray]:
    """From noise to image; the left half has variance 1e-5, the right one 0.1."""
    half = noise.shape[-1] // 2
    weights = np.ones(noise.shape[-1])
    found = []
    for plain, textured in zip(gains(1e-5), gains(0.1), strict=True):
        weights[:half], weights[half:] = plain, textured
        found.append(noise * weights)
    return found


def verdicts(found):
    return [claim.holds for claim in found.claims]


def test_distances_and_turns_are_those_of_loops(lab):
    pictures = lab.generated(COUNT, STEPS)
    noise, latent = (
        x.double().numpy() for x in (pictures.noise, lab.inverted(pictures, forward=str(FORWARD), steps=STEPS).latent)
    )
    reported = Line(COUNT, STEPS, FORWARD).run(lab).metrics[f"forward k = {FORWARD}"]
    turned = [math.inf] * COUNT
    for row, state in enumerate(states(noise)):
        table = np.zeros((COUNT, 25))
        for i in range(COUNT):
            for j, a in enumerate(np.linspace(0, 1, 25)):
                table[i, j] = np.sqrt(((state[i] - (1 - a) * noise[i] - a * latent[i]) ** 2).sum())
            if table[i, 24] < table[i, 0]:
                turned[i] = min(turned[i], row / STEPS)
        assert reported["distances"][row] == pytest.approx(table.mean(0), abs=1e-4), row
    assert reported["share that passes 0.5"] == pytest.approx(np.isfinite(turned).mean())
    assert reported["passes 0.5"][0] == np.median(turned)


def test_the_figures_are_drawn(lab):
    for figure in Line(8, 3, 1).run(lab).figures:
        assert figure.drawing.png.startswith(b"\x89PNG")


def test_where_the_latent_is_the_image_the_path_ends_in_it(lab, give):
    """Closed form: position 1 at the end; every image has turned, when its own state is nearer to the image than to noise."""
    pictures = lab.generated(COUNT, STEPS)
    give(pictures.pixels)
    found = Line(COUNT, STEPS, FORWARD).run(lab)
    reported = found.metrics["DDIM latent"]
    assert reported["position"][0] == pytest.approx(0, abs=1e-9)
    assert reported["end"] == pytest.approx([1, 1, 1], abs=1e-5)
    assert reported["share that passes 0.5"] == 1
    assert found.claims[1].holds is True
    assert reported["passes 0.5"][1] <= reported["passes 0.5"][0] <= reported["passes 0.5"][2]
    assert found.claims[0].holds is (reported["passes 0.5"][1] >= 0.5 and reported["passes 0.5"][2] <= 0.7)


def test_a_line_to_other_noise_is_none_that_the_path_turns_to(lab, give):
    pictures = lab.generated(COUNT, STEPS)
    give(true_noise(pictures.noise.shape, seed=5))
    assert True not in verdicts(Line(COUNT, STEPS, FORWARD).run(lab))


def test_a_short_latent_alone_puts_the_image_past_the_middle(lab, give):
    """Closed form for l = c l', l' other noise: 1/2 + (1 - c^2) / (2 (1 + c^2)) = 1 / (1 + c^2), to 1 / sqrt(d)."""
    pictures = lab.generated(COUNT, STEPS)
    give(0.5 * true_noise(pictures.noise.shape, seed=5))
    reported = Line(COUNT, STEPS, FORWARD).run(lab).metrics["DDIM latent"]
    assert reported["end by length"] == pytest.approx(1 / (1 + 0.5**2), abs=0.01)


def test_the_null_of_the_end_holds_noise_as_often_as_it_says(lab):
    """19 of 20 draws: at most 6 of 40 outside, which happens once in 70."""
    pictures = lab.generated(COUNT, STEPS)
    null = line._ends_of_noise(lab, pictures)
    image, noise = pictures.pixels.double().flatten(1), pictures.noise.double().flatten(1)
    inside = 0
    for draw in range(40):
        ahead = true_noise(noise.shape, seed=77, draw=draw).double() - noise
        inside += null.low <= float((((image - noise) * ahead).sum(1) / (ahead**2).sum(1)).median()) <= null.high
    assert inside >= 34


def test_walks_are_kept_for_their_settings_alone(lab):
    """Another forward start or seed is another walk; the same one is read back."""
    first = Line(8, 3, 1).run(lab).metrics
    assert Line(8, 3, 1).run(lab).metrics == first
    assert Line(8, 3, 2).run(lab).metrics["forward k = 2"] != first["forward k = 1"]
    assert Line(8, 3, 1).run(replace(lab, seed=1)).metrics != first
