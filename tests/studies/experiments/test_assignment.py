"""E15 against nearest neighbours by loops, pairs of known distance, and unrelated noise that finds its image by chance."""

from __future__ import annotations

import numpy as np
import pytest

from unsample.diagnostics import true_noise
from unsample.pictures.read import Photo
from unsample.studies.experiments import Lab
from unsample.studies.experiments.e15_assignment import FROM_IMAGE, TO_IMAGE, AssignmentOf

COUNT, STEPS, FORWARD, DIVISION = 40, 6, 2, 20


pytestmark = pytest.mark.usefixtures("undrawn")


def run(lab):
    found = AssignmentOf(COUNT, STEPS, FORWARD, DIVISION).run(lab)
    return found.metrics, [claim.holds for claim in found.claims]


def share(a: np.ndarray, b: np.ndarray) -> float:
    """Of items of a whose nearest among the b of their division is their own."""
    hits = 0
    for i, item in enumerate(a):
        first = i // DIVISION * DIVISION
        hits += first + int(np.argmin([((item - other) ** 2).sum() for other in b[first : first + DIVISION]])) == i
    return hits / len(a)


def test_shares_and_distances_are_those_of_loops(lab):
    pictures = lab.generated(COUNT, STEPS)
    image = pictures.pixels.double().numpy()
    starts = {
        "its noise": pictures.noise,
        "DDIM latent": lab.inverted(pictures, steps=STEPS).latent,
        f"forward k = {FORWARD}": lab.inverted(pictures, forward=str(FORWARD), steps=STEPS).latent,
    }
    metrics, _ = run(lab)
    for name, start in starts.items():
        x = start.double().numpy()
        assert metrics[name][TO_IMAGE][0] == share(x, image), name
        assert metrics[name][FROM_IMAGE][0] == share(image, x), name
        apart = [np.sqrt(((x[i] - image[i]) ** 2).sum()) for i in range(COUNT)]
        others = [np.sqrt(((x[i] - image[i - 1]) ** 2).sum()) for i in range(COUNT)]
        assert metrics["L2 to own image"][name] == pytest.approx(np.mean(apart), rel=1e-6)
        assert metrics["L2 to another image"][name] == pytest.approx(np.mean(others), rel=1e-6)
    assert metrics["chance"] == 1 / DIVISION


def test_unrelated_noise_finds_its_image_by_chance(lab):
    """Eight draws of two divisions: the expected number of hits is one a division, whatever the images."""
    metrics, _ = run(lab)
    for ends in metrics["null"].values():
        assert 0 <= ends[0] <= 3 / DIVISION
        assert ends[1] <= 1 / DIVISION <= ends[2]


def test_latents_that_are_the_images_are_nearer(lab, give):
    give(lab.generated(COUNT, STEPS).pixels)
    metrics, held = run(lab)
    assert metrics["DDIM latent"][TO_IMAGE][0] == metrics["DDIM latent"][FROM_IMAGE][0] == 1
    assert held[1] is True


def test_latents_that_are_far_are_not_nearer(lab, give):
    give(2 * true_noise(lab.generated(COUNT, STEPS).noise.shape, seed=4))
    assert run(lab)[1][1] is False


@pytest.mark.parametrize("expected", [True, False])
def test_the_way_that_finds_more_is_told(lab, monkeypatch, expected, give):
    """A grey image is nearer to any noise than one that shares little with it, and a noise of nothing to any image."""
    pictures = lab.generated(COUNT, STEPS)
    large = pictures.noise
    small = 0.2 * large + 0.8 * true_noise(large.shape, seed=6)
    small[::DIVISION] = 0
    if not expected:
        large, small = small, large
    made = type(pictures)(pictures.name, tuple(Photo.of(image, "x") for image in small), large)
    monkeypatch.setattr(Lab, "generated", lambda *a, **k: made)
    give(large)
    assert run(lab)[1][0] is expected


def test_the_figure_is_drawn(lab):
    (figure,) = AssignmentOf(8, 3, 1, 8).run(lab).figures
    assert figure.drawing.png.startswith(b"\x89PNG")
