"""Sums of one move's error, and what they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import unsample as us
from unsample.diagnostics import StepErrors, step_sums, true_noise


def drawn(count=5, seed=0):
    eps, guess, true, arrived = true_noise((4, count, 2, 6, 5), seed=seed).unbind()
    return eps, guess, true, 0.5 * arrived + 3, true_noise((count, 6, 5), seed=seed, draw=1) > 0.3


def test_sums_are_those_of_a_naive_loop():
    """Reference: a loop over pixels."""
    eps, guess, true, arrived, mask = drawn()
    expected = np.zeros((5, 6))
    for b, row, column in mask.nonzero().tolist():
        for c in range(2):
            e, g, x, y = (float(one[b, c, row, column]) for one in (eps, guess, true, arrived))
            expected[b] += [1, abs(e - g), x, x * x, y, y * y]
    np.testing.assert_allclose(step_sums(eps, guess, true, arrived, mask).numpy(), expected, rtol=1e-12)


def test_sums_do_not_depend_on_blocks(monkeypatch):
    from unsample.diagnostics import step_error

    given = drawn()
    whole = step_sums(*given)
    monkeypatch.setattr(step_error, "blocks", lambda items, values: (slice(i, i + 2) for i in range(0, items, 2)))
    assert torch.equal(step_sums(*given), whole)


def three_steps(mask=None):
    steps = [drawn(seed=seed) for seed in range(3)]
    return steps, StepErrors(torch.stack([step_sums(*step[:4], mask) for step in steps], dim=1).numpy())


def test_errors_variances_and_shares_are_those_of_the_pixels():
    """Reference: torch on the pooled pixels."""
    steps, found = three_steps()
    errors = [float((eps.double() - guess.double()).abs().mean()) for eps, guess, *_ in steps]
    variances = [float(y.double().var(correction=0) / x.double().var(correction=0)) for _, _, x, y, _ in steps]
    assert [step.value for step in found.error] == pytest.approx(errors, rel=1e-12)
    assert [step.value for step in found.recovered] == pytest.approx(variances, rel=1e-12)
    assert found.share(2).value == pytest.approx(sum(errors[:2]) / sum(errors), rel=1e-12)
    weighted = [w * e for w, e in zip((0, 1, 5), errors, strict=True)]
    assert found.share(2, (0, 1, 5)).value == pytest.approx(weighted[1] / sum(weighted), rel=1e-12)


def errors(*per_step, images=4):
    """Sums with the given xi at each step, the same in all images."""
    sums = np.zeros((images, len(per_step), 6))
    sums[:, :, 0], sums[:, :, 1] = 10, 10 * np.array(per_step)
    return StepErrors(sums)


def test_ratio_and_crossing_of_two_areas():
    """Closed form."""
    plain, other = errors(4, 3, 1, 5), errors(2, 2, 2, 2)
    assert plain.error_ratio(other, 2).value == pytest.approx(3.5 / 2)
    assert plain.crossing(other).value == 3
    assert other.crossing(plain).value == 1
    assert errors(3, 3).crossing(errors(2, 2)).value == 3
    assert plain.crossing(other).interval().low == 3


def test_an_empty_area_has_no_value():
    empty = StepErrors(np.zeros((3, 2, 6)))
    assert np.isnan([step.value for step in (*empty.error, *empty.recovered)]).all()
    assert np.isnan(empty.error_ratio(errors(1, 1, images=3), 1).value)
    assert np.isnan(empty.crossing(errors(1, 1, images=3)).value)


def test_the_interval_of_the_error_covers_it():
    """Null calibration. Reference: E|a - b| = 2 / sqrt(pi) for independent standard normals; nominal 95 %."""
    hits = []
    for draw in range(200):
        eps, guess = true_noise((2, 24, 1, 4, 4), seed=7, draw=draw).unbind()
        found = StepErrors(step_sums(eps, guess, eps, guess)[:, None].numpy())
        interval = found.error[0].interval(draws=400)
        recovered = found.recovered[0].interval(draws=400)
        hits.append((interval.low <= 2 / np.sqrt(np.pi) <= interval.high, recovered.low <= 1 <= recovered.high))
    rates = np.mean(hits, axis=0)
    assert rates.min() > 0.88, rates
    assert rates.max() < 0.99, rates


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"guess": torch.zeros(5, 2, 6, 6)}, "of one shape"),
        ({"arrived": torch.full((5, 2, 6, 5), torch.nan)}, "finite"),
        ({"mask": torch.ones(5, 6, 6, dtype=torch.bool)}, "mask"),
        ({"eps": torch.zeros(5, 2, 6)}, "4 dimensions"),
    ],
)
def test_what_has_no_sums_is_refused(change, says, untyped):
    given = dict(zip(("eps", "guess", "true", "arrived", "mask"), drawn(), strict=True))
    with pytest.raises(us.ArgumentError, match=says):
        step_sums(**given | change)


def test_what_has_no_statistic_is_refused():
    with pytest.raises(us.ArgumentError, match=r"\[B, N, 6\]"):
        StepErrors(np.zeros((2, 6)))
    with pytest.raises(us.ArgumentError, match="1 to 2 first steps"):
        errors(1, 2).share(3)
    with pytest.raises(us.ArgumentError, match="1 to 2 first steps"):
        errors(1, 2).share(1, (1,))
    with pytest.raises(us.ArgumentError, match="the same images"):
        errors(1, 2).crossing(errors(1))
