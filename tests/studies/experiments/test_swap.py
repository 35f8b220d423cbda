"""E9 on independent Gaussian pixels, whose predictions are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unsample.diagnostics import plain_mask
from unsample.studies.experiments import e09_swap as swap
from unsample.studies.experiments import recipe
from unsample.studies.experiments.e09_swap import Swap

COUNT, STEPS, SWAPS = 34, 6, (1, 3)


@pytest.fixture(scope="module")
def lab(kept_lab):
    return kept_lab


@pytest.fixture(scope="module")
def found(lab):
    return Swap(COUNT, STEPS, SWAPS).run(lab)


def by_hand(lab, k):
    """Latents of the first k true predictions: numpy, from the closed form of eps for independent pixels."""
    grid, v = lab.model.grid(STEPS), lab.model.network.variances.numpy()
    x = lab.generated(COUNT, STEPS).noise.double().flatten(1).numpy()
    true = {}

    def eps(y, level):
        return level.sigma * y / (level.alpha**2 * v + level.sigma**2)

    def move(y, e, source, target):
        return target.alpha * (y - source.sigma * e) / source.alpha + target.sigma * e

    for i in range(STEPS, 0, -1):
        true[i] = eps(x, grid[i])
        x = move(x, true[i], grid[i], grid[i - 1])
    for i in range(1, STEPS + 1):
        x = move(x, true[i] if i <= k else eps(x, grid[i]), grid[i - 1], grid[i])
    return x


def test_latents_are_those_of_the_closed_form(lab, found):
    """Reference: a loop in numpy, over the library's plain mask."""
    pictures = lab.generated(COUNT, STEPS)
    noise = pictures.noise.double().flatten(1).numpy()
    plain = plain_mask(pictures.shown)[:, None].expand(pictures.noise.shape).flatten(1).numpy()
    for k in (0, 1, 3, 6):
        latent, reported = by_hand(lab, k), found.metrics["swap"][f"k={k}"]
        rows = {row["name"]: row["value"] for row in reported["rows"]}
        assert reported["distance"]["estimate"] == pytest.approx(np.abs(latent - noise).mean(), abs=2e-5)
        assert rows["std plain"] == pytest.approx(latent[plain].std(), rel=1e-3)
        assert rows["KL to N(0, 1)"] == pytest.approx(
            (latent.var() + latent.mean() ** 2 - 1 - np.log(latent.var())) / 2, rel=1e-3, abs=1e-6
        )
        assert reported["nfe_up"] == STEPS - k


def test_no_true_prediction_is_the_usual_inversion(lab, found):
    usual = lab.diagnosed(lab.generated(COUNT, STEPS), lab.inverted(lab.generated(COUNT, STEPS), steps=STEPS)).to_dict()
    ours = found.metrics["swap"]["k=0"]["rows"]
    for row, other in zip(ours, usual["rows"], strict=True):
        assert row["value"] == pytest.approx(other["value"], rel=1e-4, abs=1e-5), row["name"]


def test_all_true_predictions_give_the_noise(lab, found):
    (check,) = (claim for claim in found.claims if "rounding" in claim.sentence)
    assert check.holds is True
    assert found.metrics["swap"][f"k={STEPS}"]["distance"]["estimate"] < 1e-5


def test_what_spoils_the_replay_is_seen(lab, monkeypatch):
    """With the network asked in place of the record, the latents are not the noise."""
    monkeypatch.setattr(swap, "Replayed", lambda eps, otherwise: otherwise)
    noise = torch.randn(2, 3, 16, 16)
    assert (swap._swap_rows(lab, noise, STEPS, [STEPS])[f"latent.{STEPS}"] - noise).abs().max() > swap.ROUNDING


def test_the_network_is_asked_as_often_as_is_said(lab):
    """Sampling and recording N, inverting N - k, and back N, for every k."""
    calls, network = [], lab.model.network
    model = replace(lab.model, network=lambda x, t, condition: calls.append(len(x)) or network(x, t, condition))
    swap._swap_rows(replace(lab, model=model), torch.randn(2, 3, 16, 16), STEPS, [0, 2])
    assert len(calls) == STEPS + (STEPS + STEPS) + (STEPS - 2 + STEPS)


def test_few_is_at_most_a_tenth_and_always_tried():
    assert Swap(8, 50, (0, 1, 5, 10)).few == 5
    assert Swap(8, 50, (0, 20)).few == 1
    assert Swap(8, 5, (2,)).tried == [0, 1, 2, 5]


def test_plain_areas_are_judged_by_their_own_noise(lab, found):
    """Reference: the share of the gap that closes, from the closed form's latents."""
    pictures = lab.generated(COUNT, STEPS)
    plain = plain_mask(pictures.shown)[:, None].expand(pictures.noise.shape).flatten(1).numpy()
    usual, mended, own = (by_hand(lab, k)[plain].std() for k in (0, 1, STEPS))
    (claim,) = (claim for claim in found.claims if "the variance comes most of the way" in claim.sentence)
    assert f"their own noise has {own:.4g} [" in claim.numbers
    closed = 1 - abs(mended - own) / abs(usual - own)
    assert f"; {100 * closed:.0f} % [" in claim.numbers
    assert claim.holds is bool(closed > 0.5)


def test_claims_compare_with_a_forward_start_of_the_same_k(lab, found):
    """Reference: the forward start's own diagnosis."""
    pictures = lab.generated(COUNT, STEPS)
    started = lab.diagnosed(pictures, lab.inverted(pictures, forward="1", steps=STEPS))
    swapped = {row["name"]: row["value"] for row in found.metrics["swap"]["k=1"]["rows"]}
    *_, less, nearer = found.claims
    assert str(started["std plain"]) in nearer.numbers
    difference = abs(started["std plain"].value - 1) - abs(swapped["std plain"] - 1)
    assert f"nearer to 1 by {difference:.4g} [" in nearer.numbers
    assert nearer.holds in (None, difference > 0)
    change = started["top-20 patch correlation"].value - swapped["top-20 patch correlation"]
    assert float(less.numbers.split("less by ")[1].split()[0]) == pytest.approx(change, rel=1e-3)
    assert less.holds in (True, False, None)


def test_the_recipe_makes_it():
    assert recipe("E9").make("paper") == Swap(8192, 50, (0, 1, 2, 5, 10, 50))
