"""The loop and the DDIM method."""

import dataclasses

import pytest
import torch

import unsample as us

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())
GRID = us.Grid.of(SCHEDULE, 6)


def evaluated_levels(steps, method):
    """The levels at which a network is evaluated on a walk."""
    levels = []

    def denoiser(x, level):
        levels.append(level)
        return torch.zeros_like(x)

    for _ in us.walk(denoiser, torch.ones((1, 2)), steps, method):
        pass
    return levels


@pytest.mark.parametrize("eval_at", ["target", "source", "target_time"])
def test_down_always_evaluates_where_x_is(eval_at):
    assert evaluated_levels(GRID.down(), us.DDIM(eval_at=eval_at)) == list(GRID.levels[:0:-1])


def test_up_evaluates_where_the_method_says():
    assert evaluated_levels(GRID.up(), us.DDIM()) == list(GRID.levels[1:])
    assert evaluated_levels(GRID.up(), us.DDIM(eval_at="source")) == list(GRID.levels[:-1])
    mixed = evaluated_levels(GRID.up(), us.DDIM(eval_at="target_time"))
    assert [(m.t, m.alpha, m.sigma) for m in mixed] == [(s.dst.t, s.src.alpha, s.src.sigma) for s in GRID.up()]


def test_a_walk_is_lazy_and_each_move_starts_where_the_last_ended():
    walk = us.walk(lambda x, level: torch.tanh(x), torch.ones((1, 2)), GRID.up(), us.DDIM())
    first = next(walk)
    assert first.step == next(iter(GRID.up()))
    second = next(walk)
    expected = us.transfer(first.x, torch.tanh(first.x), second.step)
    assert torch.equal(second.x, expected)
    assert torch.equal(second.eps, torch.tanh(first.x))
    assert [move.step.dst.index for move in walk] == [3, 4, 5, 6]


def test_a_walk_builds_no_autograd_graph():
    weight = torch.ones((), requires_grad=True)
    for moved in us.walk(lambda x, level: weight * x, torch.ones((1, 2)), GRID.up(), us.DDIM()):
        assert not moved.x.requires_grad


def test_a_walk_hands_the_state_of_a_method_from_move_to_move():
    @dataclasses.dataclass(frozen=True)
    class Counting(us.Stepper):
        def init(self, x):
            return 10

        def step(self, denoiser, x, step, state):
            return us.Moved(step, x, denoiser(x, step.src), state + 1)

    assert isinstance(Counting(), us.Stepper)
    states = [m.state for m in us.walk(lambda x, level: x, torch.ones((1, 2)), GRID.up(), Counting())]
    assert states == [11, 12, 13, 14, 15, 16]


def test_ddim_prints_compares_and_refuses(untyped):
    assert us.DDIM() == us.DDIM(eval_at="target")
    assert hash(us.DDIM()) == hash(us.DDIM("target"))
    assert repr(us.DDIM(clip=1.0)) == "DDIM(eval_at='target', clip=1.0)"
    with pytest.raises(us.UnknownNameError, match="did you mean 'source'"):
        us.DDIM(eval_at="sorce")


def test_eps_of_another_shape_are_refused():
    """One for all items would be broadcast."""
    grid = us.Grid.of(us.Schedule.from_betas(us.Schedule.linear_betas()), 3)
    with pytest.raises(us.ArgumentError, match=r"expected eps of shape \(2, 1, 4, 4\) as x, given \(1, 1, 4, 4\)"):
        list(us.walk(lambda x, level: x[:1], torch.ones(2, 1, 4, 4), grid.up(), us.DDIM()))
