"""E17: how images are made strange, against loops; latents of photographs against the gain of a linear model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unsample import pictures as plotting
from unsample.diagnostics import plain_mask, psnr
from unsample.runs.directory import Run
from unsample.studies.experiments import Lab, recipe, write
from unsample.studies.experiments.e17_photographs import KINDS, PAPER, USUAL, Photographs, posterised, scrambled, solarised

from .closed_form import gain

COUNT, STEPS = 33, 6


def images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_solarised_turns_the_bright_half_around():
    """Reference: a loop; up to 0 a value is doubled towards 1, beyond it falls again."""
    image = images(3, 4, 5)
    expected = [2 * v + 1 if v <= 0 else 1 - 2 * v for v in image.flatten().tolist()]
    torch.testing.assert_close(solarised(image).flatten(), torch.tensor(expected))


def test_posterised_is_the_nearest_of_four():
    image, known = images(3, 4, 5), [-1.0, -1 / 3, 1 / 3, 1.0]
    expected = [min(known, key=lambda level: abs(level - v)) for v in image.flatten().tolist()]
    torch.testing.assert_close(posterised(image).flatten(), torch.tensor(expected))


@pytest.mark.parametrize("size", [(16, 8), (18, 11)])
def test_scrambled_moves_every_tile_and_leaves_the_rest(size):
    """Reference: tile by tile; sides that four does not divide keep their last rows and columns."""
    image = images(2, *size)
    height, width = size[0] // 4, size[1] // 4
    expected = image.clone()
    for new in range(16):
        old = (5 * new + 3) % 16
        assert old != new
        (i, j), (k, m) = divmod(new, 4), divmod(old, 4)
        tile = image[:, k * height : (k + 1) * height, m * width : (m + 1) * width]
        expected[:, i * height : (i + 1) * height, j * width : (j + 1) * width] = tile
    assert torch.equal(scrambled(image), expected)
    assert torch.equal(image.sum((1, 2)).round(decimals=3), scrambled(image).sum((1, 2)).round(decimals=3))


@pytest.fixture
def folder(tmp_path):
    """33 pictures of 16x16 in patches of 4x4, so that each has plain and other areas."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(COUNT):
        pixels = rng.integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / f"{i:02d}.png")
    return str(tmp_path / "data")


def whole_gain(v):
    """Of DDIM inversion at the target's time on a pixel of variance v; six leading timesteps."""
    return math.prod(gain(v, i, i + 1, i + 1, STEPS) for i in range(STEPS))


def test_latents_of_strange_images_are_the_models_gain_times_the_pixels(lab: Lab, folder):
    """The model is linear: its latent of any image is known, and with it the deviation in plain areas."""
    lab = replace(lab, data=(folder,))
    found = Photographs(COUNT, STEPS).run(lab)
    photographs = lab.photographs(COUNT)
    gains = torch.full((16,), whole_gain(0.1), dtype=torch.float64)
    gains[:8] = whole_gain(1e-5)
    for name, change in {"photographs": lambda image: image, **KINDS}.items():
        pixels = torch.stack([change(photo.pixels) for photo in photographs.photos])
        plain = plain_mask(pixels)[:, None].expand(pixels.shape)
        rows = {row["name"]: row for row in found.metrics[name][USUAL]["rows"]}
        for area, mask in (("plain", plain), ("other", ~plain)):
            expected = float((gains * pixels.double())[mask].std(correction=0))
            assert rows[f"std {area}"]["value"] == pytest.approx(expected, rel=1e-3), (name, area)
        assert rows["plain fraction"]["value"] == pytest.approx(float(plain.double().mean()))
    assert {claim.images for claim in found.claims} == {"photographs", "solarised, posterised, scrambled"}
    check_claims(found, lab)
    page = write(Run.open(lab.cache.parent / "E17", "experiment", {}, []), recipe("E17"), "smoke", lab, found)
    assert page.read_text().count("<img") == 2


def check_claims(found, lab):
    """The verdicts on photographs, from the rows alone."""
    rows = {way: {row["name"]: row for row in found.metrics["photographs"][way]["rows"]} for way in (USUAL, PAPER)}
    std, r, paper = rows[USUAL]["std plain"], rows[PAPER]["top-20 patch correlation"], rows[PAPER]["std plain"]
    reported = {claim.sentence: claim for claim in found.claims if claim.images == "photographs"}
    flaw, _, floor, gap, cost, _ = reported.values()
    assert flaw.holds is (std["high"] < std["null"]["low"])
    assert floor.holds is (r["null"]["low"] <= r["value"] <= r["null"]["high"])
    share = (paper["value"] - std["value"]) / (1 - std["value"])
    assert f"{100 * share:.0f} %" in gap.numbers
    shown = lab.photographs(COUNT).shown
    back = [lab.inverted(lab.photographs(COUNT), "ddim", k, steps=STEPS).reconstruction for k in ("2", "0")]
    assert f"{float((psnr(shown, back[0]) - psnr(shown, back[1])).mean()):+.2f} dB" in cost.numbers


def test_of_eight_photographs_the_correlation_cannot_be_told(lab: Lab, monkeypatch):
    """Undrawn: the test of strange images draws."""
    monkeypatch.setattr(plotting, "picture_rows", lambda *given, **named: plotting.Drawing(b"", b""))
    found = Photographs(COUNT, 4).run(lab)
    assert "r cannot be told" in found.setting
    assert "8 photographs (the eight that come with unsample)" in found.setting
    verdicts = {claim.sentence: claim.holds for claim in found.claims if claim.images == "photographs"}
    assert verdicts["... and are correlated."] is None
    assert (
        verdicts["On photographs that the model never saw, a forward start of k = 2 brings the correlation to its floor,"]
        is None
    )
    assert verdicts["On photographs that the model never saw, DDIM latents of plain areas have too little noise,"] is not None
