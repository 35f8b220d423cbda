import pytest
import torch

import unsample as us
from unsample.core.denoiser import cost_of
from unsample.core.schedule import Level

LEVEL, OTHER = Level(3, 40, 0.8, 0.6), Level(4, 60, 0.6, 0.8)
X = torch.tensor([[1.0, -2.0]], dtype=torch.float64)


def conditional(x, level):
    return 3 * x + level.t


def unconditional(x, level):
    return x


@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, -1.0])
def test_guidance_is_linear_from_unconditional_to_conditional(w):
    """Reference: eps_u + w (eps_c - eps_u), eq. 9; 0 is unconditional, 1 conditional only."""
    guided = us.Guided(conditional, unconditional, w)
    u, c = X, 3 * X + 40
    torch.testing.assert_close(guided(X, LEVEL), u + w * (c - u))
    if w in (0, 1):
        torch.testing.assert_close(guided(X, LEVEL), c if w else u)
    assert guided.cost == 2


def test_counting_adds_the_cost_of_every_call_through_any_wrapping():
    guided = us.Guided(conditional, unconditional, 2.0)
    counted = us.Counted(us.Recorded(guided))
    for _ in range(3):
        counted(X, LEVEL)
    assert counted.nfe == 6
    assert cost_of(counted) == cost_of(us.Recorded(guided)) == 2
    assert cost_of(unconditional) == 1
    assert torch.equal(counted(X, LEVEL), guided(X, LEVEL))


def test_replaying_counts_what_a_guided_network_costs():
    guided = us.Guided(conditional, unconditional, 2.0)
    counted = us.Counted(us.Replayed({3: X}, guided))
    counted(X, OTHER)
    assert counted.nfe == guided.cost == 2


def test_recording_keeps_the_last_answer_of_each_level():
    recorded = us.Recorded(conditional)
    recorded(X, LEVEL)
    recorded(2 * X, LEVEL)
    recorded(X, OTHER)
    assert set(recorded.eps) == {3, 4}
    assert torch.equal(recorded.eps[3], conditional(2 * X, LEVEL))


def test_replaying_gives_back_what_it_has_and_calls_for_the_rest():
    counted = us.Counted(conditional)
    replayed = us.Replayed({3: 7 * X}, counted)
    assert torch.equal(replayed(X, LEVEL), 7 * X)
    assert counted.nfe == 0
    assert torch.equal(replayed(X, OTHER), conditional(X, OTHER))
    assert counted.nfe == 1


def test_swapping_in_true_predictions_makes_the_inversion_exact(toy):
    """The paper's swap experiment (E9): the eps recorded on the way down, replayed on the way up, return the noise."""
    model = toy()
    grid, noise = model.grid(20), us.draw_noise(model, 8, dtype=torch.float64)
    recorded = us.Recorded(model.denoiser())
    *_, down = us.walk(recorded, noise, grid.down(), us.DDIM())

    def error(k):
        kept = {i: eps for i, eps in recorded.eps.items() if i <= k}
        *_, up = us.walk(us.Replayed(kept, model.denoiser()), down.x, grid.up(), us.DDIM())
        return float((up.x - noise).square().mean())

    assert set(recorded.eps) == set(range(1, 21))
    assert error(20) < 1e-24
    assert 1e-6 < error(5) < 0.5 * error(0)


def test_a_network_is_given_its_timestep_condition_and_prediction():
    given = {}

    def network(x, t, condition):
        given.update(t=t, condition=condition)
        return 0.5 * x

    denoiser = us.NetworkDenoiser(network, "v_prediction", condition="c")
    x = torch.ones((3, 2), dtype=torch.float64)
    torch.testing.assert_close(denoiser(x, LEVEL), 0.8 * 0.5 * x + 0.6 * x)
    assert given["condition"] == "c"
    assert given["t"].dtype == torch.long
    assert given["t"].tolist() == [40, 40, 40]
