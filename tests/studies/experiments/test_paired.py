"""Intervals of comparisons, against loops over resamples and groups, and on true noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import Interval, area_sums, psnr, top_k_correlation, top_k_jackknife, true_noise
from unsample.studies.experiments.paired import (
    both,
    change_of_psnr,
    correlations,
    exceeds,
    percent,
    r_together,
    signed,
    together,
)


def noises(count, side, *, draws):
    return [true_noise((count, 2, side, side), seed=5, draw=draw) for draw in draws]


def test_a_function_of_two_deviations_is_a_loop_over_resamples():
    """Reference: each resample's images put together, and their standard deviations taken anew."""
    ours, theirs = noises(12, 4, draws=(0, 1))
    theirs = 0.5 * theirs + 0.3
    found = together([area_sums(x).pooled("std") for x in (ours, theirs)], lambda a, b: a - b)
    drawn = np.random.default_rng(0).integers(12, size=(2000, 12))
    values = sorted(float(ours[i].double().std(correction=0) - theirs[i].double().std(correction=0)) for i in drawn)
    assert found.estimate == pytest.approx(float(ours.double().std(correction=0) - theirs.double().std(correction=0)))
    assert values[49] - 1e-9 <= found.low <= values[50] + 1e-9
    assert values[1949] - 1e-9 <= found.high <= values[1950] + 1e-9


def test_the_difference_of_two_draws_of_noise_is_nothing_95_times_in_100():
    """Coverage over 100 pairs of 40 images. Fewer than 87 have a chance of one in 2,000 if it is 95 %."""
    draws = [noises(40, 4, draws=(2 * i, 2 * i + 1)) for i in range(100)]
    found = [together([area_sums(x).pooled("std") for x in pair], lambda a, b: a - b) for pair in draws]
    assert sum(interval.low <= 0 <= interval.high for interval in found) >= 87


def test_shared_scatter_falls_out():
    """One latent and the same scaled by 1.01: their difference is known far better than either."""
    (x,) = noises(20, 4, draws=(0,))
    alone = together([area_sums(x).pooled("std")], lambda a: a)
    paired = together([area_sums(y).pooled("std") for y in (1.01 * x, x)], lambda a, b: a - b)
    assert paired.high - paired.low < 0.02 * (alone.high - alone.low)
    assert exceeds(paired, 0) is True


def test_one_correlation_has_the_error_of_the_jackknife():
    """Reference: `top_k_jackknife`, which takes the groups out of sums, where this leaves them out of the batch."""
    x = noises(45, 8, draws=(0,))[0]
    reference, found = top_k_jackknife(x), r_together([correlations(x)], lambda r: r)
    assert found.estimate == pytest.approx(reference.value, rel=1e-5)
    assert (found.high - found.low) / 2 == pytest.approx(2.262157 * reference.error, rel=1e-3)


def test_correlations_leave_out_each_tenth_image():
    x = noises(40, 8, draws=(0,))[0]
    kept = torch.tensor([i for i in range(40) if i % 10 != 3])
    assert correlations(x)[4] == top_k_correlation(x[kept])
    assert correlations(x)[0] == top_k_correlation(x)


def test_too_few_images_have_no_interval():
    x = noises(33, 8, draws=(0,))[0]
    found = r_together([correlations(x)], lambda r: r)
    assert found.estimate == top_k_correlation(x)
    assert math.isnan(found.low)
    assert exceeds(found, 0) is None
    assert math.isnan(r_together([correlations(x[:31])], lambda r: r).estimate)


def test_a_change_of_psnr_is_the_mean_of_changes_and_stops_at_60_db():
    images = torch.zeros(3, 1, 4, 4)
    worse, exact = images + torch.tensor([0.1, 0.2, 0.4])[:, None, None, None], images
    found = change_of_psnr(images, worse, exact)
    assert found.estimate == pytest.approx(float((psnr(images, worse) - 60).mean()))


@pytest.mark.parametrize(
    ("span", "says"), [((1.1, 1.3), True), ((0.7, 0.9), False), ((0.9, 1.1), None), ((math.nan, math.nan), None)]
)
def test_a_verdict_needs_the_whole_interval(span, says):
    assert exceeds(Interval(1.0, *span), 1.0) is says


@pytest.mark.parametrize(("first", "second", "says"), [(True, True, True), (False, None, False), (None, True, None)])
def test_both_is_false_where_one_is_refuted(first, second, says):
    assert both(first, second) is says
    assert both(second, first) is says


def test_without_ends_there_is_no_interval_to_print():
    assert signed(Interval(0.5, math.nan, math.nan), " dB") == "+0.50 dB"
    assert percent(Interval(0.5, math.nan, math.nan)) == "50 %"
    assert signed(Interval(math.nan, math.nan, math.nan)) == percent(Interval(math.nan, math.nan, math.nan)) == "-"
