"""E2 on a Gaussian field, against DDIM and Pearson's r written out."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from unsample.diagnostics.row import PATCH_ROW
from unsample.pictures.read import demo_photos
from unsample.studies.experiments import Lab
from unsample.studies.experiments.e02_steps import Steps, _claims


@pytest.fixture(scope="module")
def found(field_lab):
    return Steps(40, (6, 3, 6)).run(field_lab)


def ddim(model, x, levels, ask):
    """Equation 12 of Song et al. 2021 from level to level, the network asked at the level that `ask` picks of both ends."""
    for src, dst in pairwise(levels):
        eps = model.denoiser()(x, ask(src, dst))
        x0 = (x - src.sigma * eps) / src.alpha
        x = dst.alpha * x0 + dst.sigma * eps
    return x


def naive_top20(latent):
    """Mean over the 8 x 8 windows of the 20 largest |Pearson r| across images."""
    windows = []
    for top in range(0, latent.shape[2], 8):
        for left in range(0, latent.shape[3], 8):
            values = latent[:, :, top : top + 8, left : left + 8].reshape(len(latent), -1)
            r = np.abs(np.corrcoef(values, rowvar=False))[np.triu_indices(values.shape[1], 1)]
            windows.append(np.sort(r)[-20:].mean())
    return np.mean(windows)


@pytest.mark.parametrize("steps", [3, 6])
def test_numbers_against_ddim_and_pearson_written_out(field_lab, found, steps):
    lab = field_lab
    noise = lab.generated(40, 3).noise
    levels = [lab.model.grid(steps)[i] for i in range(steps + 1)]
    images = ddim(lab.model, noise.double(), levels[::-1], lambda src, dst: src)
    latent = ddim(lab.model, images, levels, lambda src, dst: dst).numpy()
    shown = (images.clamp(-1, 1).numpy() + 1) / 2
    down, across = (np.abs(np.diff(shown, axis=axis, append=np.take(shown, [-2], axis=axis))) for axis in (2, 3))
    plain = (down + across) / 2 < 0.025
    rows = {row["name"]: row for row in found.metrics["generated"][f"T={steps}"]["rows"]}
    assert rows[PATCH_ROW]["value"] == pytest.approx(naive_top20(latent), abs=1e-4)
    assert rows["std plain"]["value"] == pytest.approx(latent[plain].std(), abs=1e-4)
    assert rows["std other"]["value"] == pytest.approx(latent[~plain].std(), abs=1e-4)


def test_every_number_of_steps_is_measured_once_in_order(found):
    assert list(found.metrics["generated"]) == ["T=3", "T=6"]
    (table,) = found.tables.values()
    assert [row[0] for row in table.rows] == ["T = 3", "T = 6", "true noise"]
    json.dumps(found.metrics, allow_nan=False)


def test_a_smooth_field_stays_correlated_and_says_so(found):
    persists, plain, falls = found.claims
    last = {row["name"]: row for row in found.metrics["generated"]["T=6"]["rows"]}
    assert persists.holds is True
    assert last[PATCH_ROW]["low"] > last[PATCH_ROW]["null"]["high"]
    assert plain.holds is True
    assert last["std plain"]["high"] < last["std plain"]["null"]["low"]
    assert "at T = 3, " in falls.numbers
    assert falls.numbers.endswith("at T = 6")


def test_one_number_of_steps_tells_nothing_of_a_fall(field_lab, found):
    pictures = field_lab.generated(40, 3)
    diagnosis = field_lab.diagnosed(pictures, field_lab.inverted(pictures, steps=3))
    assert len(_claims({3: diagnosis})) == len(found.claims) - 1


def test_too_few_photographs_for_a_correlation_cannot_be_told(pixels, tmp_path):
    found = Steps(32, (2, 3)).run(Lab(pixels, tmp_path, data=tuple(map(str, demo_photos()))))
    reported = {claim.sentence: claim.holds for claim in found.claims if claim.images == "photographs"}
    assert reported["Latents are still correlated at T = 3."] is None
    assert reported["... but they are less correlated the more steps there are."] is None
    assert len(found.figures) == 2
