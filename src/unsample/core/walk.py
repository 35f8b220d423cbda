"""The one loop over moves: sampling, inversion, progress bars and kept trajectories all consume it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from .._tensors import as_state, undisturbed
from ..errors import ArgumentError
from .denoiser import Denoiser
from .grid import Step
from .stepper import Moved, Stepper

OnMove = Callable[[int], object]
"""Called after each move with the number of items moved."""


def walk(
    denoiser: Denoiser,
    x: Tensor,
    steps: Iterable[Step],
    method: Stepper,
    state: Any = None,
    correct: Callable[[Moved], Tensor] | None = None,
) -> Iterator[Moved]:
    """Move `x` along `steps`, yielding each move as it is made.

    Nothing is kept: states and eps are read from the moves. `state` is the memory that another walk ended with; a reversible
    method turns around with it. States are float32 at least. `correct` returns the state to go on from after a move.

    >>> import torch
    >>> from unsample import DDIM, Grid, Schedule
    >>> grid = Grid.of(Schedule.from_betas(Schedule.linear_betas()), 10)
    >>> moves = walk(lambda x, level: torch.zeros_like(x), torch.ones(1, 4), grid.up(), DDIM())
    >>> [moved.step.dst.index for moved in moves]
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    with undisturbed():
        x = as_state(x)
        state = method.init(x) if state is None else state
    for step in steps:
        with undisturbed():
            moved = method.step(denoiser, x, step, state)
            moved = moved if correct is None else replace(moved, x=correct(moved))
        if moved.eps.shape != x.shape:
            raise ArgumentError(f"expected eps of shape {tuple(x.shape)} as x, given {tuple(moved.eps.shape)} by the denoiser")
        x, state = moved.x, moved.state
        yield moved
