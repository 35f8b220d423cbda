"""E3 on a Gaussian field, against numpy and scipy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

from unsample.diagnostics import nulls, true_noise
from unsample.studies.experiments.e03_normality import (
    GROUPS,
    KL,
    LOW,
    PER_COORDINATE,
    REJECTED,
    SPECTRUM,
    Normality,
    _jackknife,
    _measured,
    _quantile_panel,
    _rows,
    _simulated,
    _spectrum_panel,
)

PARTS = ["DDIM latent", "forward start, k = 2", "noise"]


@pytest.fixture(scope="module")
def found(field_lab):
    return Normality(40, 4, 2).run(field_lab)


@pytest.fixture(scope="module")
def values(field_lab):
    pictures = field_lab.generated(40, 4)
    latents = [field_lab.inverted(pictures, forward=forward, steps=4).latent for forward in ("0", "2")]
    return dict(zip(PARTS, [*latents, pictures.noise], strict=True))


def kl(mean, variance):
    return (variance + mean**2 - 1 - np.log(variance)) / 2


@pytest.mark.parametrize("part", PARTS)
def test_numbers_against_numpy_and_scipy(found, values, part):
    x = values[part].double().numpy()
    rows = {name: row["value"] for name, row in found.metrics["generated"][part].items()}
    assert rows[KL] == pytest.approx(kl(x.mean(), x.var()), rel=1e-6)
    assert rows[PER_COORDINATE] == pytest.approx(kl(x.mean(0), x.var(0)).mean(), rel=1e-6)
    assert rows["mean"] == pytest.approx(x.mean(), rel=1e-6)
    assert rows["std"] == pytest.approx(x.std(), rel=1e-6)
    assert rows["excess kurtosis"] == pytest.approx(scipy.stats.kurtosis(x.ravel()), rel=1e-6)
    assert rows[REJECTED] == np.mean([scipy.stats.shapiro(one.ravel()).pvalue < 0.05 for one in x])
    power, low = np.abs(np.fft.fft2(x)) ** 2 / 256, []
    for i, fy in enumerate(np.fft.fftfreq(16)):
        low += [power[:, :, i, j] for j, fx in enumerate(np.fft.fftfreq(16)) if math.hypot(fx, fy) < 0.125]
    radii = np.floor(16 * np.hypot(*np.meshgrid(np.fft.fftfreq(16), np.fft.fftfreq(16))) + 0.5)
    means = {r: power[:, :, radii == r].mean() for r in range(9)}
    squares = [(means[r] - 1) ** 2 for r in radii.ravel() if r in means]
    assert rows[SPECTRUM] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)
    assert rows[LOW] == pytest.approx(np.mean(low), rel=1e-6)


def test_claims_follow_from_the_numbers(found):
    """A smooth field loses variance and keeps its low frequencies: far outside the null, as is its divergence."""
    rows, mended = (found.metrics["generated"][part] for part in PARTS[:2])
    holds = [claim.holds for claim in found.claims]
    assert rows[KL]["low"] > rows[KL]["null"]["high"]
    assert rows["std"]["high"] < rows["std"]["null"]["low"]
    assert holds[0] is True
    assert holds[3] is (rows[SPECTRUM]["low"] > rows[SPECTRUM]["null"]["high"]) is True
    assert holds[4] is (mended[KL]["high"] < rows[KL]["low"]) is True
    for claim, name in zip(found.claims[5:], (KL, PER_COORDINATE, REJECTED, SPECTRUM), strict=True):
        null = mended[name]["null"]
        assert claim.holds is (null["low"] <= mended[name]["value"] <= null["high"])
    json.dumps(found.metrics, allow_nan=False)


def test_figures_against_numpy(values):
    x = values["DDIM latent"].double().numpy()
    noise, curve, *_ = _quantile_panel("", values).curves
    p = (np.arange(101) + 0.5) / 101
    normal = scipy.stats.norm.ppf(p)
    assert curve.x == pytest.approx(normal)
    assert curve.y == pytest.approx(np.quantile(x, p, method="hazen") - normal, abs=1e-6)
    reach = 1.96 * np.sqrt(p * (1 - p) / x.size) / scipy.stats.norm.pdf(normal)
    assert noise.name == "true noise"
    assert noise.high == pytest.approx(reach)
    white, spectrum, *_ = _spectrum_panel("", values).curves
    assert spectrum.y[0] == pytest.approx(256 * np.mean(x.mean((2, 3)) ** 2), rel=1e-6)  # frequency 0: the squared mean
    assert (white.low[0], white.high[0]) == pytest.approx(scipy.stats.chi2.ppf([0.025, 0.975], 40) / 40)


def test_jackknife_of_a_mean_in_closed_form():
    """Of a mean it is the standard error of the means of the groups."""
    x = true_noise((50, 1, 2, 2)).double()
    value, reach = _jackknife(lambda x: x.mean(), x)
    means = [float(x[i::GROUPS].mean()) for i in range(GROUPS)]
    assert float(value) == pytest.approx(float(x.mean()))
    assert float(reach) == pytest.approx(scipy.stats.t.ppf(0.975, GROUPS - 1) * scipy.stats.sem(means), rel=1e-9)


def test_noise_lies_in_its_null_at_the_stated_rate():
    """Of 20 draws of 9 statistics, 5 % fall outside: 9, with a spread of about 3."""
    shape = (32, 1, 16, 16)
    null = nulls(_simulated, shape)
    draws = [_rows(true_noise(shape, seed=1, draw=draw), null) for draw in range(20)]
    outside = sum(not row.is_noise for rows in draws for row in rows.values())
    assert 1 <= outside <= 18


def test_a_wrong_spread_and_a_wrong_shape_are_told_apart():
    noise = true_noise((64, 1, 16, 16), seed=2)
    narrow, uniform = 0.9 * noise, (torch.special.ndtr(noise) - 0.5) * math.sqrt(12)
    rows = _measured({"narrow": narrow, "uniform": uniform})
    assert rows["narrow"][KL].value == pytest.approx(kl(0, 0.81), abs=2e-3)
    assert not rows["narrow"][KL].is_noise
    assert rows["narrow"][REJECTED].is_noise
    assert rows["uniform"][REJECTED].value == 1
    assert rows["uniform"]["excess kurtosis"].value == pytest.approx(-1.2, abs=0.03)
