"""Verdicts, and the intervals of comparisons, against loops over resamples and groups, and on true noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unsample.diagnostics import (
    Interval,
    Null,
    Row,
    area_sums,
    feature_cosine,
    linear_cka,
    null,
    psnr,
    svcca,
    top_k_correlation,
    top_k_jackknife,
    true_noise,
)
from unsample.studies.experiments.paired import (
    above_chance,
    alignment_of_items,
    alignment_of_sets,
    alignment_ratio,
    bootstrapped,
    change_of_psnr,
    correlations,
    jackknifed,
)
from unsample.studies.experiments.verdicts import both, exceeds, nearer, percent, signed


def noises(count, side, *, draws):
    return [true_noise((count, 2, side, side), seed=5, draw=draw) for draw in draws]


def test_a_function_of_two_deviations_is_a_loop_over_resamples():
    """Reference: each resample's images put together, and their standard deviations taken anew."""
    ours, theirs = noises(12, 4, draws=(0, 1))
    theirs = 0.5 * theirs + 0.3
    found = bootstrapped([area_sums(x).pooled("std") for x in (ours, theirs)], lambda a, b: a - b)
    drawn = np.random.default_rng(0).integers(12, size=(2000, 12))
    values = sorted(float(ours[i].double().std(correction=0) - theirs[i].double().std(correction=0)) for i in drawn)
    assert found.estimate == pytest.approx(float(ours.double().std(correction=0) - theirs.double().std(correction=0)))
    assert values[49] - 1e-9 <= found.low <= values[50] + 1e-9
    assert values[1949] - 1e-9 <= found.high <= values[1950] + 1e-9


def test_the_difference_of_two_draws_of_noise_is_nothing_95_times_in_100():
    """Coverage over 100 pairs of 40 images. Fewer than 87 have a chance of one in 2,000 if it is 95 %."""
    draws = [noises(40, 4, draws=(2 * i, 2 * i + 1)) for i in range(100)]
    found = [bootstrapped([area_sums(x).pooled("std") for x in pair], lambda a, b: a - b) for pair in draws]
    assert sum(interval.low <= 0 <= interval.high for interval in found) >= 87


def test_shared_scatter_falls_out():
    """One latent and the same scaled by 1.01: their difference is known far better than either."""
    (x,) = noises(20, 4, draws=(0,))
    alone = bootstrapped([area_sums(x).pooled("std")], lambda a: a)
    paired = bootstrapped([area_sums(y).pooled("std") for y in (1.01 * x, x)], lambda a, b: a - b)
    assert paired.high - paired.low < 0.02 * (alone.high - alone.low)
    assert exceeds(paired, 0) is True


def test_one_correlation_has_the_error_of_the_jackknife():
    """Reference: `top_k_jackknife`, which takes the groups out of sums, where this leaves them out of the batch."""
    x = noises(45, 8, draws=(0,))[0]
    reference, found = top_k_jackknife(x), jackknifed([correlations(x)])
    assert found.estimate == pytest.approx(reference.value, rel=1e-5)
    assert (found.high - found.low) / 2 == pytest.approx(2.262157 * reference.error, rel=1e-3)


def test_correlations_leave_out_each_tenth_image():
    x = noises(40, 8, draws=(0,))[0]
    kept = torch.tensor([i for i in range(40) if i % 10 != 3])
    assert correlations(x)[4] == top_k_correlation(x[kept])
    assert correlations(x)[0] == top_k_correlation(x)


def test_too_few_images_have_no_interval():
    x = noises(33, 8, draws=(0,))[0]
    found = jackknifed([correlations(x)])
    assert found.estimate == top_k_correlation(x)
    assert math.isnan(found.low)
    assert exceeds(found, 0) is None
    assert math.isnan(jackknifed([correlations(x[:31])]).estimate)


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


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ((0.5, 0.6), (0.9, 0.95), True),
        ((0.5, 0.6), (1.2, 1.3), True),
        ((0.9, 0.95), (1.2, 1.3), False),
        ((0.9, 0.95), (1.06, 1.2), None),
        ((0.98, 1.01), (0.99, 1.02), None),
        ((1.3, 1.4), (0.98, 1.01), True),
    ],
)
def test_nearer_to_noise_needs_both_intervals(before, after, says):
    before_row, after_row = (Row("std plain", sum(ends) / 2, *ends, Null(1.0, 0.01, 0.98, 1.02)) for ends in (before, after))
    assert nearer(after_row, before_row, to=1) is says


def test_chance_is_where_unrelated_sets_lie():
    """Null calibration: a statistic of unrelated pairs lies in its 95 % interval of chance most of the time."""
    inside = []
    for draw in range(30):
        a, b = true_noise((2, 30, 1, 4, 4), seed=5, draw=draw).unbind()
        inside.append(
            [
                alignment_of_sets("CKA", linear_cka, a, b).is_noise,
                alignment_of_items("cosine", feature_cosine, a, b).is_noise,
                alignment_of_items("PSNR", psnr, (a / 4).clamp(-1, 1), (b / 4).clamp(-1, 1)).is_noise,
            ]
        )
    rates = np.mean(inside, axis=0)
    assert rates.min() >= 0.8, rates


def test_jackknife_error_is_that_of_many_draws():
    """Reference: the scatter of the statistic over independent draws."""
    pairs = [true_noise((2, 60, 3), seed=3, draw=draw).unbind() for draw in range(60)]
    rows = [alignment_of_sets("CKA", linear_cka, a, a + b) for a, b in pairs]
    reach = np.mean([(found.high - found.low) / 2 for found in rows])
    assert reach / 2.26 == pytest.approx(np.std([found.value for found in rows]), rel=0.35)


def test_a_statistic_that_is_refused_says_why():
    found = alignment_of_sets("SVCCA", svcca, true_noise((20, 30)), true_noise((20, 30), draw=1))
    assert np.isnan(found.value)
    assert "add items or keep less" in found.note
    assert np.isnan(above_chance(found).value)


def test_half_way_from_chance_is_a_half():
    """Closed form."""
    chance = null(lambda x: 0.5 + 0 * float(x.sum()), (2, 2))
    a, b = np.full(11, 0.75), np.full(11, 1.0)
    assert alignment_ratio((a, chance), (b, chance)).estimate == pytest.approx(0.5)
