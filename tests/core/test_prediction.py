import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unsample as us
from unsample.core.prediction import to_velocity
from unsample.core.schedule import Level

ANGLES = st.floats(0.05, 1.5)


def levels():
    """Variance-preserving, flow and arbitrary scales."""
    vp = ANGLES.map(lambda a: Level(1, 0, float(torch.cos(torch.tensor(a))), float(torch.sin(torch.tensor(a)))))
    flow = st.floats(0.01, 0.99).map(lambda t: Level(1, t, 1 - t, t, is_flow=True))
    free = st.tuples(st.floats(0.01, 5), st.floats(0.01, 50)).map(lambda s: Level(1, 0, *s))
    return st.one_of(vp, flow, free)


def pair(seed):
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn((2, 3), generator=rng, dtype=torch.float64) for _ in range(2))


@given(level=levels(), seed=st.integers(0, 99))
def test_every_prediction_gives_back_the_eps_and_x0_it_was_made_of(level, seed):
    """Reference: x = alpha x0 + sigma eps, v = alpha eps - sigma x0 and the velocity eps - x0, by definition."""
    x0, eps = pair(seed)
    x = level.alpha * x0 + level.sigma * eps
    outputs = {"epsilon": eps, "sample": x0, "v_prediction": level.alpha * eps - level.sigma * x0, "flow": eps - x0}
    loose = 1e-11 * (1 + level.ratio + 1 / level.ratio)
    for prediction, output in outputs.items():
        found = us.to_eps(output, x, level, prediction)
        torch.testing.assert_close(found, eps, rtol=0, atol=loose)
        torch.testing.assert_close(us.to_x0(found, x, level), x0, rtol=0, atol=loose * (1 + level.ratio))
        torch.testing.assert_close(to_velocity(found, x, level), eps - x0, rtol=0, atol=loose * (1 + level.ratio))


def test_clean_level():
    x0, eps = pair(0)
    clean = Level(0, 0, 1.0, 0.0)
    assert torch.equal(us.to_x0(eps, x0, clean), x0)
    assert torch.equal(us.to_eps(eps, x0, clean, "v_prediction"), eps)
    with pytest.raises(us.ArgumentError, match="no eps at a level without noise"):
        us.to_eps(x0, x0, clean, "sample")


def test_unknown_prediction_is_refused(untyped):
    x0, eps = pair(0)
    with pytest.raises(us.UnknownNameError, match="did you mean 'v_prediction'"):
        us.to_eps(eps, x0, Level(0, 0, 0.8, 0.6), "v-prediction")
