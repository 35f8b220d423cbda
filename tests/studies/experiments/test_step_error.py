"""E8 on a Gaussian whose left half is plain: every number is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from unsample import Schedule
from unsample.models.analytic import gaussian
from unsample.studies.experiments import Lab, recipe
from unsample.studies.experiments.e08_step_error import StepError

COUNT, STEPS, SIDE = 24, 6, 8
VARIANCES = torch.where(torch.arange(SIDE) < SIDE // 2, 1e-6, 0.4).double().expand(SIDE, SIDE).reshape(-1)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    model = gaussian(Schedule.from_betas(Schedule.linear_betas()), VARIANCES, shape=(1, SIDE, SIDE))
    return Lab(replace(model, digest="gauss"), tmp_path_factory.mktemp("cache"), batch_size=10)


@pytest.fixture(scope="module")
def found(lab):
    return StepError(COUNT, STEPS).run(lab)


def by_hand(lab):
    """xi, recovered variance of the noise and of the state, per step and area: a loop over steps with the closed form."""
    grid, pictures = lab.model.grid(STEPS), lab.generated(COUNT, STEPS)
    clean = pictures.pixels.double().numpy().reshape(COUNT, -1)
    rows = clean.reshape(COUNT, SIDE, SIDE)
    down, right = np.abs(np.diff(rows, axis=1)) / 2, np.abs(np.diff(rows, axis=2)) / 2
    down, right = np.concatenate([down, down[:, -1:]], 1), np.concatenate([right, right[:, :, -1:]], 2)
    plain = ((np.clip(down, 0, 1) + np.clip(right, 0, 1)) / 2 < 0.025).reshape(COUNT, -1)
    x, v = pictures.noise.double().numpy().reshape(COUNT, -1), VARIANCES.numpy()
    reported = {}
    for i in range(STEPS, 0, -1):
        above, below = grid[i], grid[i - 1]

        def eps(y, level=above):
            return level.sigma * y / (level.alpha**2 * v + level.sigma**2)

        lower = below.alpha * (x - above.sigma * eps(x)) / above.alpha + below.sigma * eps(x)
        arrived = above.alpha * (lower - below.sigma * eps(lower)) / below.alpha + above.sigma * eps(lower)
        for name, mask in {"plain": plain, "other": ~plain}.items():
            reported[f"xi {name}", i] = np.abs(eps(x) - eps(lower))[mask].mean()
            reported[f"recovered {name} state", i] = arrived[mask].var() / x[mask].var()
            noise = (arrived - above.alpha * clean, x - above.alpha * clean)
            reported[f"recovered {name}", i] = noise[0][mask].var() / noise[1][mask].var()
        x = lower
    np.testing.assert_allclose(x, clean, atol=1e-5)
    return reported


def test_every_number_is_that_of_a_loop_with_the_closed_form(lab, found):
    """Reference: numpy, whole arrays, no library code but the levels; shown clamping does not matter to the plain mask."""
    for (name, step), value in by_hand(lab).items():
        assert found.metrics["generated"][name][step - 1]["estimate"] == pytest.approx(value, rel=1e-3, abs=1e-6), (name, step)


def test_what_is_lost_where_the_image_is_constant_is_the_theory(lab, found):
    """Reference: x / alpha grows by 1 + alpha_src / alpha_dst (1 - 1/r) instead of r (docs/theory.md)."""
    metrics = found.metrics["generated"]
    for step in lab.model.grid(STEPS).up():
        best = metrics["best denoiser, constant image"][step.src.index]
        if step.src.ratio == 0:
            assert best == 0
            continue
        r = step.dst.ratio / step.src.ratio
        assert best == pytest.approx(((1 + step.src.alpha / step.dst.alpha * (1 - 1 / r)) / r) ** 2)
        measured = metrics["recovered plain"][step.src.index]["estimate"]
        assert measured == pytest.approx(best, abs=0.02)


def test_the_claims_say_what_the_numbers_say(found):
    first, entered, worse, turns, less = found.claims
    metrics = found.metrics["generated"]
    plain, other = ([step["estimate"] for step in metrics[f"xi {area}"]] for area in ("plain", "other"))
    assert worse.holds is (plain[0] > other[0])
    assert f"{plain[0] / other[0]:.4g} [" in worse.numbers
    crossing = next((i for i, (a, b) in enumerate(zip(plain, other, strict=True), 1) if a <= b), STEPS + 1)
    assert f": {crossing:.4g} [" in turns.numbers
    assert less.holds is True
    assert {claim.images for claim in found.claims} == {"generated"}
    assert first.holds is not None
    assert entered.holds is not None


def test_photographs_walk_a_path_that_ends_near_them(lab, tmp_path):
    """A path from nearly white latents; its numbers are finite and there are as many claims for photographs."""
    from unsample.models import load
    from unsample.pictures.read import demo_photos

    real = Lab(load(), tmp_path, tuple(map(str, demo_photos()[:3])), batch_size=4)
    found = StepError(4, 3).run(real)
    assert set(found.metrics) == {"generated", "photographs"}
    xi = [step["estimate"] for step in found.metrics["photographs"]["xi other"]]
    assert len(xi) == 3
    assert np.isfinite(xi).all()
    assert len(found.figures) == 2
    assert all(figure.drawing.png[:4] == b"\x89PNG" for figure in found.figures)


def test_without_plain_areas_it_cannot_be_told(tmp_path):
    rough = gaussian(Schedule.from_betas(Schedule.linear_betas()), [0.9] * 16, shape=(1, 4, 4))
    found = StepError(6, 3).run(Lab(replace(rough, digest="rough"), tmp_path))
    lost = [claim for claim in found.claims if "plain" in claim.sentence or "turns" in claim.sentence]
    assert [claim.holds for claim in lost] == [None, None, None]


def test_the_recipe_makes_it():
    assert recipe("E8").make("smoke") == StepError(32, 5)
