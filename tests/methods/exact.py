"""A model whose flow is known exactly, and states to try methods on.

The model is a mixture of Gaussians in one dimension: its flow keeps quantiles, which are found by bisection.
"""

import numpy as np
import torch

import unsample as us
from unsample.models.analytic import mixture

LONG = us.Schedule.from_betas(us.Schedule.linear_betas(1e-6, 2e-4, 100_000))
USUAL = us.Schedule.from_betas(us.Schedule.linear_betas())
FLOW = us.FlowSchedule()

MEANS, VARIANCES, WEIGHTS = (torch.tensor(v, dtype=torch.float64) for v in ([-1, 0.2, 0.9], [0.1, 0.3, 0.2], [0.3, 0.5, 0.2]))


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(*shape):
    """Noise that is correlated with its neighbours, of standard deviation 1."""
    noise = draw(*shape)
    return (noise + noise.roll(1, 2) + noise.roll(1, 3) + noise.roll((1, 1), (2, 3))) / 2


def states(method, steps, denoiser, x):
    """Every state of a walk."""
    return torch.stack([moved.x for moved in us.walk(denoiser, x, steps, method)])


def quantile(x, level):
    scale = (level.alpha**2 * VARIANCES + level.sigma**2).sqrt()
    return (WEIGHTS * torch.special.ndtr((x[:, None] - level.alpha * MEANS) / scale)).sum(1)


def exact_flow(x, src, dst):
    low, high, wanted = torch.full_like(x, -10), torch.full_like(x, 10), quantile(x, src)
    for _ in range(60):
        middle = (low + high) / 2
        below = quantile(middle, dst) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return low


def error_of(moves, method, schedule=LONG, *, up, answer=None):
    """Largest error at the end of a walk. `answer(method, eps, x, level)` fills the method's memory from the exact flow."""
    times = np.linspace(0.02, 0.8, moves + 1) * len(schedule)
    grid = us.Grid.from_timesteps(schedule, (times if schedule is FLOW else times.round().astype(int)).tolist())
    steps, memory = list(grid.up(1) if up else grid.down(stop=1)), ()
    denoiser = mixture(schedule, MEANS[:, None], VARIANCES, shape=(1, 1, 1), weights=WEIGHTS).denoiser()
    x, begin = torch.linspace(-1.8, 1.8, 31, dtype=torch.float64), steps[0].src
    known, steps = (steps[: method.order - 1], steps[method.order - 1 :]) if answer else ([], steps)
    for step in known:
        there = exact_flow(x, begin, step.src).reshape(-1, 1, 1, 1)
        memory = ((step.src, answer(method, denoiser(there, step.src), there, step.src)), *memory)
    start = exact_flow(x, begin, steps[0].src).reshape(-1, 1, 1, 1)
    *_, last = us.walk(denoiser, start, steps, method, memory or None)
    return float((last.x.flatten() - exact_flow(x, begin, steps[-1].dst)).abs().max())


def slope_of(counts, method, schedule=LONG, **kind):
    """The measured order of convergence, and the errors. `method` may depend on the number of moves."""
    errors = [error_of(n, method(n) if callable(method) else method, schedule, **kind) for n in counts]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0], errors


# Against diffusers, in float64

TIGHT = 1e-11


def network(x, t):
    """Any smooth, bounded, nonlinear function of state and time."""
    t = torch.as_tensor(t, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return torch.tanh(x * (0.5 + t / 2000)) + 0.3 * torch.sin(3 * x + t / 100)


DENOISER = us.NetworkDenoiser(lambda x, t, _condition: network(x, t), "epsilon")


def worst(ours, theirs):
    assert torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))
