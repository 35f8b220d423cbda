"""E11 against loops over pairs and points, and on ways whose ends and middles are made."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import unsample as us
from unsample.diagnostics import frechet, true_noise
from unsample.studies.experiments.e11_images import NOISE, USUAL, PathImages
from unsample.studies.experiments.e11_interpolation import Interpolation

PAIRS, STEPS, POINTS = 20, 4, 3


class Means:
    name = "means"

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images, 8).flatten(1)


@pytest.fixture(autouse=True)
def features(request, undrawn, monkeypatch):
    """192 features take most of the time: the test that draws has them, the others twelve means of pixels."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr(PathImages, "judge", Means())


def between(lab):
    return PathImages(lab, PAIRS, STEPS, 1, POINTS)


def slerped(a, b):
    """Half way, by the angle of all values."""
    w = math.acos(float((a * b).sum() / a.norm() / b.norm()))
    return math.sin(w / 2) / math.sin(w) * (a + b)


def test_ways_are_those_of_loops_over_pairs(lab):
    """Reference: each pair of noises, or of latents, half way by its own angle, sampled alone."""
    made, noise = between(lab), lab.generated(4 * PAIRS, STEPS).noise
    latent = lab.inverted(made.ends, steps=STEPS).latent
    for name, x in ((NOISE, noise), (USUAL, latent)):
        for pair in (0, 7, PAIRS - 1):
            half = slerped(x[2 * pair].double(), x[2 * pair + 1].double()).float()
            expected = us.sample(lab.model, half[None], steps=STEPS).images[0].clamp(-1, 1)
            assert torch.allclose(made.images[name][1, pair], expected, atol=1e-5)
    assert torch.equal(made.images[NOISE][0], made.ends.shown[0::2])
    assert torch.equal(made.images[NOISE][2], made.ends.shown[1::2])
    half = slerped(noise[4].double(), latent[4].double()).float()
    expected = us.sample(lab.model, half[None], steps=STEPS).images[0].clamp(-1, 1)
    assert torch.allclose(made.own[USUAL][1, 2], expected, atol=1e-5)
    apart = (expected - made.ends.shown[4]).double().square().mean().sqrt()
    assert float(made.apart(USUAL)[1][2]) == pytest.approx(float(apart), abs=1e-5)
    assert float(made.apart(USUAL)[0].abs().max()) == 0


def test_distances_are_to_images_that_are_no_ends(lab):
    """Reference: `frechet` of the features of each point and of the other half of the samples; a jackknife by hand."""
    made, judge = between(lab), Means()
    every = lab.generated(4 * PAIRS, STEPS)
    real = judge.features(every.shown[2 * PAIRS :]).double()
    ours = judge.features(every.shown[0 : 2 * PAIRS : 2]).double()
    found = made.frechet["generated"][NOISE][0]
    assert found.estimate == pytest.approx(frechet(ours, real, features="x").value, rel=1e-6)
    left = [frechet(*(x[torch.arange(len(x)) % 10 != i] for x in (ours, real)), features="x").value for i in range(10)]
    assert (found.high - found.low) / 2 == pytest.approx(2.262 * math.sqrt(9 * np.var(left)), rel=1e-3)


def give(monkeypatch, images):
    """Let the ways of each kind have these images: kind -> [points, pairs, ...]; the way to the own latent those of DDIM."""
    monkeypatch.setattr(PathImages, "images", images)
    monkeypatch.setattr(PathImages, "own", {USUAL: images[USUAL]})
    monkeypatch.setattr(PathImages, "whiteness", {})


def held(lab):
    found = Interpolation(PAIRS, STEPS, 1, POINTS).run(lab)
    return {claim.sentence: claim.holds for claim in found.claims}, found.metrics


@pytest.mark.parametrize("spoiled", [True, False])
def test_a_spoiled_middle_is_told_from_a_flat_way(lab, monkeypatch, spoiled):
    """Every point the same fresh samples, but that those in the middle of DDIM's ways are noise, or not."""
    fresh = lab.generated(6 * PAIRS, STEPS).shown[5 * PAIRS :]
    flat = torch.stack([fresh] * POINTS)
    middle = flat.clone()
    if spoiled:
        middle[1] = true_noise(tuple(fresh.shape), seed=3).clamp(-1, 1)
    give(monkeypatch, {NOISE: flat, USUAL: middle, "forward start, k = 1": flat, "look-ahead, k = 1": middle})
    claims, metrics = held(lab)
    verdicts = list(claims.values())
    assert verdicts[0] is True
    assert verdicts[1] is (True if spoiled else None)
    assert verdicts[2:4] == [True, not spoiled]
    rise = metrics["rise"]["generated"]
    assert rise[NOISE] == pytest.approx([0, 0, 0], abs=1e-9)
    assert (rise[USUAL][0] > 0.5) is spoiled


def test_a_middle_that_repeats_itself_is_less_diverse(lab, monkeypatch):
    fresh = lab.generated(6 * PAIRS, STEPS).shown[5 * PAIRS :]
    flat = torch.stack([fresh] * POINTS)
    same = flat.clone()
    same[1] *= 0.25  # every distance a quarter
    give(monkeypatch, {NOISE: flat, USUAL: same, "forward start, k = 1": flat, "look-ahead, k = 1": flat})
    claims, metrics = held(lab)
    assert claims["Images in the middle between DDIM latents are less diverse (ours)."] is True
    ends = metrics["diversity"][USUAL]
    assert ends[1][0] == pytest.approx(0.25 * ends[0][0])


@pytest.mark.parametrize("half_way", [0.1, 0.9])
def test_an_image_that_strays_half_way_is_told(lab, monkeypatch, half_way):
    """Of images that are off by so much half way to the latent, and by 0.5 at it."""
    image = between(lab).ends.shown[0::2]
    ways = torch.stack([image, image + half_way, image + 0.5])
    give(monkeypatch, dict.fromkeys((NOISE, USUAL, "forward start, k = 1", "look-ahead, k = 1"), ways))
    claims, metrics = held(lab)
    assert [point[0] for point in metrics["own"][USUAL]] == pytest.approx([0, half_way, 0.5], abs=1e-6)
    assert list(claims.values())[-1] is (half_way < 0.5)


@pytest.mark.parametrize(("values", "says"), [((PAIRS, STEPS, 1, 4), "odd"), ((19, STEPS, 1, 3), "at least 20")])
def test_what_has_no_middle_or_no_interval_is_refused(lab, values, says):
    with pytest.raises(us.ArgumentError, match=says):
        Interpolation(*values).run(lab)


def test_it_is_drawn(lab):
    found = Interpolation(PAIRS, STEPS, 1, POINTS).run(lab)
    assert all(figure.drawing.png.startswith(b"\x89PNG") for figure in found.figures)
    assert len(found.tables) == 3 + 4
