"""E7 against sums over pixels written out, latents of prescribed spread, and noise that the null must not tell from noise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from unsample.diagnostics import plain_mask, true_noise
from unsample.pictures.read import demo_photos
from unsample.studies.experiments.e07_plain_areas import EXPECTED, PlainAreas

COUNT, STEPS, FORWARD = 30, 6, 2


pytestmark = pytest.mark.usefixtures("undrawn")


def spread(lab, plain, other):
    """Latents that are noise times one number in plain areas and another elsewhere."""
    pictures = lab.generated(COUNT, STEPS)
    mask = plain_mask(pictures.shown)[:, None]
    return true_noise(pictures.noise.shape, seed=8) * torch.where(mask, plain, other)


def verdicts(lab):
    found = PlainAreas(COUNT, STEPS, FORWARD).run(lab)
    return found, [claim.holds for claim in found.claims]


@pytest.mark.parametrize("forward", [0, FORWARD])
def test_every_number_is_that_of_the_values_picked_one_by_one(lab, forward):
    pictures = lab.generated(COUNT, STEPS)
    latent = lab.inverted(pictures, forward=str(forward), steps=STEPS).latent.double().numpy()
    noise, mask = pictures.noise.double().numpy(), plain_mask(pictures.shown).numpy()
    values, errors, pairs = {True: [], False: []}, {True: [], False: []}, {True: [], False: []}
    for i, c, y, x in np.ndindex(*latent.shape):
        here = bool(mask[i, y, x])
        values[here].append(latent[i, c, y, x])
        errors[here].append(abs(latent[i, c, y, x] - noise[i, c, y, x]))
        for v, u in ((y + 1, x), (y, x + 1)):
            if max(v, u) < 16 and mask[i, v, u] == here:
                pairs[here].append((latent[i, c, y, x], latent[i, c, v, u]))
    metrics = PlainAreas(COUNT, STEPS, FORWARD).run(lab).metrics["generated"]
    reported = metrics["DDIM" if forward == 0 else f"forward k = {FORWARD}"]
    for area, here in (("plain", True), ("other", False)):
        x, both = np.array(values[here]), np.array(pairs[here])
        assert reported["std"][area]["value"] == pytest.approx(x.std(), rel=1e-6)
        assert reported["std of absolute values"][area]["value"] == pytest.approx(np.abs(x).std(), rel=1e-6)
        assert reported["error"][area]["value"] == pytest.approx(np.mean(errors[here]), rel=1e-6)
        lag = ((both - x.mean()).prod(axis=1)).mean() / x.var()
        assert reported["lag-1"][area]["value"] == pytest.approx(lag, abs=1e-6)
    assert metrics["plain share"] == pytest.approx(mask.mean())


def test_noise_takes_what_closed_form_says():
    """Reference: E|x|^2 - (E|x|)^2 with E|x| = sqrt(2 / pi), and E|x - y| of two independent normals, by quadrature."""
    x = np.linspace(-12, 12, 200_001)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    mean = np.trapezoid(np.abs(x) * density, x)
    assert EXPECTED["std of absolute values"] == pytest.approx(math.sqrt(np.trapezoid(x**2 * density, x) - mean**2))
    assert EXPECTED["error"] == pytest.approx(math.sqrt(2) * mean)


def test_other_noise_is_taken_for_noise(lab, give):
    """Null calibration: of six numbers of whiteness most lie where 19 of 20 do, and no gap is seen."""
    give(spread(lab, 1.0, 1.0))
    found, held = verdicts(lab)
    reported = found.metrics["generated"]["DDIM"]
    rows = [row for name, areas in reported.items() for row in areas.values()]
    assert sum(row["null"]["low"] <= row["value"] <= row["null"]["high"] for row in rows) >= len(rows) - 2
    for name, areas in reported.items():
        if name != "error":  # the noise under an area is not ordinary noise
            assert areas["other"]["null"]["mean"] == pytest.approx(EXPECTED[name], abs=0.01)
    assert held[1] is not True


@pytest.mark.parametrize(("plain", "other", "expected"), [(0.5, 1.0, True), (1.0, 0.5, False)])
def test_a_gap_of_known_sign_is_judged_by_its_sign(lab, give, plain, other, expected):
    give(spread(lab, plain, other))
    found, held = verdicts(lab)
    reported = found.metrics["generated"]["DDIM"]
    assert reported["std"]["plain"]["value"] == pytest.approx(plain, rel=0.05)
    assert reported["std of absolute values"]["other"]["value"] == pytest.approx(0.603 * other, rel=0.05)
    assert held[1:3] == [expected, expected]
    assert held[3] is None  # both ways gave the same latent


@pytest.mark.parametrize("expected", [True, False])
def test_the_error_is_judged_by_its_sign(lab, give, expected):
    """The latent is the noise, 0.1 off in one area."""
    pictures = lab.generated(COUNT, STEPS)
    wrong = plain_mask(pictures.shown)[:, None] == expected
    give(pictures.noise + torch.where(wrong, 0.1, 0.0))
    found, held = verdicts(lab)
    errors = found.metrics["generated"]["DDIM"]["error"]
    assert sorted(row["value"] for row in errors.values()) == pytest.approx([0, 0.1], abs=1e-6)
    assert held[0] is expected


def test_photographs_have_no_noise_to_err_from(lab):
    found = PlainAreas(COUNT, STEPS, FORWARD).run(replace(lab, data=tuple(map(str, demo_photos()))))
    assert [claim.images for claim in found.claims].count("photographs") == 3
    assert set(found.metrics["photographs"]["DDIM"]) == {"std", "std of absolute values", "lag-1"}
    assert all("|" not in cell for table in found.tables.values() for row in (table.head, *table.rows) for cell in row)
    assert set(found.tables) == {"Plain and other areas, generated", "Plain and other areas, photographs"}


def test_without_plain_areas_nothing_is_claimed(lab, monkeypatch):
    monkeypatch.setattr(
        "unsample.studies.experiments.e07_plain_areas.plain_area", lambda x, z: torch.zeros(len(x), 16, 16).bool()
    )
    found, held = verdicts(lab)
    assert held == [None] * 4
    assert found.metrics["generated"]["DDIM"]["std"]["plain"]["value"] is None


def test_the_figures_are_drawn(lab):
    assert all(figure.drawing.png.startswith(b"\x89PNG") for figure in PlainAreas(8, 3, 1).run(lab).figures)
