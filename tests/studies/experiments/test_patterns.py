"""E4 on a Gaussian field, against loops over items, and its null on true noise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import excess_variance, plain_area, true_noise
from unsample.pictures.read import demo_photos
from unsample.studies.experiments import Lab
from unsample.studies.experiments.e04_patterns import (
    CONTOURS,
    FORWARD,
    LATENT,
    NOISE,
    PLAIN,
    Patterns,
    _contours,
    _measured,
    alignment,
    most_plain,
)


@pytest.fixture(scope="module")
def found(field_lab):
    return Patterns(40, 4, 1, 3).run(field_lab)


def naive_r(a, b):
    """Pearson's r of each pair of maps, by numpy."""
    return np.array([np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(a, b, strict=True)])


def test_the_error_follows_contours_as_a_loop_says(field_lab, found):
    pictures = field_lab.generated(40, 4)
    latent = field_lab.inverted(pictures, steps=4).latent.numpy()
    error = np.abs(latent - pictures.noise.numpy())[:, 0]
    slope = [np.hypot(*np.gradient(image[0])) for image in pictures.shown.numpy()]
    row = found.metrics["generated"][f"{LATENT}: {CONTOURS}"]
    assert row["value"] == pytest.approx(naive_r(error, slope).mean(), abs=1e-5)
    others = [naive_r(error, np.roll(slope, shift, 0)).mean() for shift in range(1, 40)]
    assert row["null"]["mean"] == pytest.approx(np.mean(others), abs=0.7 * np.std(others))  # 4 standard errors of 32 pairings
    assert row["null"]["std"] == pytest.approx(np.std(others), rel=0.5)


@pytest.mark.parametrize(("name", "forward"), [(LATENT, "0"), (FORWARD, "1"), (NOISE, None)])
def test_local_variance_in_plain_areas_as_a_loop_says(field_lab, found, name, forward):
    pictures = field_lab.generated(40, 4)
    x = pictures.noise if forward is None else field_lab.inverted(pictures, forward=forward, steps=4).latent
    x, spread = x.numpy()[:, 0], np.empty((40, 16, 16))
    for i in range(16):
        for j in range(16):
            spread[:, i, j] = (x[:, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3] ** 2).mean((1, 2))
    plain = plain_area(pictures.shown, torch.from_numpy(x[:, None])).numpy()
    assert plain.any((1, 2)).all()  # else r is undefined
    row = found.metrics["generated"][f"{name}: {PLAIN}"]
    assert row["value"] == pytest.approx(naive_r(spread, plain).mean(), abs=1e-5)


def test_claims_follow_from_the_numbers(found):
    contours, shows, mended = found.claims
    rows = found.metrics["generated"]
    error, usual, after = (rows[key] for key in (f"{LATENT}: {CONTOURS}", f"{LATENT}: {PLAIN}", f"{FORWARD}: {PLAIN}"))
    assert contours.holds is (error["low"] > error["null"]["high"] or error["high"] < error["null"]["low"])
    outside = usual["value"] < usual["null"]["low"]
    assert shows.holds is (True if usual["high"] < usual["null"]["low"] else None if outside else False)
    assert mended.holds is (after["null"]["low"] <= after["value"] <= after["null"]["high"])
    # The field is plain in the same half in every item, so other items' images say as much of a latent as its own.
    assert usual["value"] < -0.2
    assert usual["null"]["mean"] < -0.2
    json.dumps(rows, allow_nan=False)


def test_too_little_noise_in_plain_areas_is_seen_and_noise_is_not():
    """Images plain in a half of their own, latents with a quarter of the variance there."""
    noise, order = true_noise((40, 1, 16, 16)), torch.arange(40) % 4
    plain = torch.stack([torch.rot90(torch.arange(16).lt(8).expand(16, 16), int(turn)) for turn in order])[:, None]
    images = torch.where(plain, 0.0, true_noise((40, 1, 16, 16), draw=1).clamp(-1, 1))
    rows = _measured(images, {LATENT: torch.where(plain, 0.5, 1.0) * noise, FORWARD: noise})
    assert -1 < rows[PLAIN, LATENT].value < -0.6
    assert rows[PLAIN, LATENT].high < rows[PLAIN, LATENT].null.low
    assert rows[PLAIN, FORWARD].is_noise
    assert {what for what, _ in rows} == {PLAIN}


def test_the_items_with_the_largest_plain_areas_are_drawn(found):
    steep, flat = torch.arange(16.0).remainder(2).expand(1, 16, 16) * 2 - 1, torch.zeros(1, 16, 16)
    half = torch.where(torch.arange(16) < 8, flat, steep)
    assert most_plain(torch.stack([steep, half, flat, half, flat]), 4) == [2, 4, 1, 3]
    assert "Of 40 generated images the 3 with the largest plain areas" in found.figures[0].caption
    assert "one scale, from 0 (white) to " in found.figures[0].caption


def test_contours_are_those_of_the_latents_resolution():
    ramp = torch.linspace(-1, 1, 9).expand(2, 3, 9, 9)
    assert torch.allclose(_contours(ramp, (3, 3)), torch.full((2, 3, 3), 0.25))


def test_alignment_of_known_correlation():
    image, noise = true_noise((64, 32, 32)), true_noise((64, 32, 32), draw=1)
    row = alignment("", 0.3 * image + math.sqrt(1 - 0.09) * noise, image)
    assert row.low < 0.3 < row.high
    assert row.value == pytest.approx(0.3, abs=0.02)
    assert alignment("", -image, image).value == pytest.approx(-1)


def test_unrelated_maps_lie_in_the_null_at_the_stated_rate():
    """Smooth maps have few independent pixels, and share their edges: the null must know. Reference: 5 % of 200."""
    outside = 0
    for draw in range(200):
        x = true_noise((24, 1, 12, 12), draw=draw)
        masks = excess_variance(true_noise((24, 1, 12, 12), seed=1, draw=draw)) > 0
        outside += not alignment("", excess_variance(x), masks.float()).is_noise
    assert 2 <= outside <= 20


def test_items_without_two_areas_are_left_out():
    a, b = true_noise((12, 8, 8)), true_noise((12, 8, 8), draw=1)
    b[3] = 1.0
    kept = [i for i in range(12) if i != 3]
    row = alignment("", a, b)
    assert row.note == "11 items"
    assert row.value == pytest.approx(naive_r(a[kept].numpy(), b[kept].numpy()).mean(), abs=1e-6)
    few = alignment("", a[:5], b[:5])
    assert math.isnan(few.value)
    assert few.is_noise is None


def test_photographs_have_no_noise_to_differ_from(pixels, tmp_path):
    found = Patterns(8, 3, 1, 2).run(Lab(pixels, tmp_path, data=tuple(map(str, demo_photos()))))
    assert {key.split(": ")[1] for key in found.metrics["photographs"]} == {PLAIN}
    assert len([claim for claim in found.claims if claim.images == "photographs"]) == 2
    assert [figure.name for figure in found.figures] == ["patterns-generated", "patterns-photographs"]
