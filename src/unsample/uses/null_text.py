"""Null-text optimisation: an unconditional embedding for each level, so that guided sampling follows an inversion.

An inversion without guidance leaves pivots, the states it passed. Sampling back with guidance strays from them. Here the
embedding that guidance moves away from is fitted, level by level on the way down, until the guided move lands on the pivot
(Mokady et al. 2023, "Null-text Inversion"). The network and the condition stay as they are, so that the condition can be
changed afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .._tensors import Images, as_state, check_rows, gradients, undisturbed
from ..core.batching import OnStep, batches, broadcast_conditions, counter
from ..core.denoiser import Counted, Denoiser, Guided, NetworkDenoiser
from ..core.grid import Grid, Step
from ..core.model import Model
from ..core.stepper import Moved, Stepper
from ..core.trajectory import Trajectory
from ..core.transfer import transfer
from ..core.walk import walk
from ..errors import ArgumentError, counted
from ..methods.fixed_point import per_item
from .door import a_model, use
from .sources import Conditions, grid_of, one_condition

RATE_FALL = 0.5
"""The share that Adam's rate loses on the way down: 1e-2 (1 - i/100) at move i of 50 (Mokady et al. 2023, their code)."""

TOLERANCE_RISE = 1e-3
"""What the tolerance gains on the way down: 1e-5 + 2e-5 i at move i of 50 (their code)."""


@dataclass(frozen=True, eq=False)
class NullText:
    """Fitted embeddings, for `sample(..., negative=fitted.embeddings)` with the condition and guidance they were fitted for.

    Attributes:
        embeddings: Level -> what replaces the unconditional embedding there; (batch, ...).
        losses: The same keys -> mean square distance to the pivot after the move from there, (batch,); levels with a pivot.
        nfe: Forward evaluations per item, those of the slowest item at each level. The backward passes are extra: one for each
            evaluation but two a level.

    >>> fitted = NullText({1: torch.zeros(2, 8)}, {1: torch.zeros(2)}, nfe=12)
    >>> fitted.embeddings[1].shape
    torch.Size([2, 8])
    """

    embeddings: Mapping[int, Tensor] = field(repr=False)
    losses: Mapping[int, Tensor] = field(repr=False)
    nfe: int


@use({"model": a_model})
def null_text(
    model: Model,
    images: Images,
    pivots: Trajectory,
    *,
    condition: Conditions = None,
    prompt: Conditions = None,
    guidance: float = 7.5,
    iterations: int = 10,
    rate: float = 1e-2,
    tolerance: float = 1e-5,
    batch_size: int | None = None,
    grid: Grid | None = None,
    on_step: OnStep | None = None,
) -> NullText:
    """Unconditional embeddings with which guided DDIM sampling follows `pivots` down to `images`.

    At each level Adam starts from the embedding of the level above, the first from the unconditional one, and the state moves
    on with what it found. Items are fitted apart: one that is close enough is left alone. Below a forward start there are no
    pivots but the image: the embedding is kept, and fitted again for the last move.

    Rate and tolerance change along the way as in the authors' code, which counts moves i of 50: rate (1 - i/100) and tolerance
    + 2e-5 i. Other numbers of moves are given the same course, as shares of the way. Their code makes one more step of Adam
    when it has found an item to be close enough; here the embedding that was found to be so is kept.

    Args:
        model: One that takes embeddings: see `Model.embed`.
        images: What was inverted.
        pivots: Of `invert(model, images, condition=..., keep=Keep("states"))` with guidance 1 and any method and start.
        condition: The condition that the images were inverted with; one for all items or one per item.
        prompt: Another name of `condition`.
        guidance: w in eps_u + w (eps_c - eps_u), as it will be sampled with.
        iterations: Steps of Adam a level, at most.
        rate: Of Adam, in units of the embedding; it falls to half.
        tolerance: Mean square distance to the pivot that is close enough; it rises by 1e-3.
        batch_size: Items per network call; all at once by default.
        grid: The levels that were visited; default is the pivots' own.
        on_step: Called after each move, for progress bars.

    Raises:
        ArgumentError: Pivots without states or of other images, no condition, or a model that takes no embeddings.

    An embedding that is eps itself: inverted with 1, it has to become 1.

    >>> from unsample import FromImage, Keep, Schedule, invert
    >>> schedule = Schedule.from_betas(Schedule.linear_betas())
    >>> model = Model(
    ...     lambda x, t, condition: condition[:, :, None, None] + 0 * x,
    ...     schedule,
    ...     (1, 4, 4),
    ...     conditioner=lambda conditions, device: torch.tensor([[float(c is not None)] for c in conditions]),
    ... )
    >>> images = torch.zeros(1, 1, 4, 4)
    >>> pivots = invert(model, images, start=FromImage(), condition=0, keep=Keep("states"))
    >>> fitted = null_text(model, images, pivots, condition=0, guidance=3.0, rate=0.1)
    >>> [round(fitted.embeddings[level].item(), 1) for level in (50, 45, 40, 1)]
    [0.9, 1.0, 1.0, 1.0]
    """
    grid = grid_of(model, None, grid, pivots) if pivots.grid else grid_of(model, pivots.index, grid)
    check_rows(images, "images")
    images = as_state(images)
    if len(images) != len(pivots):
        raise ArgumentError(
            f"expected the images that were inverted: {counted(len(pivots), 'latent')}, {counted(len(images), 'image')}"
        )
    if not pivots.states:
        raise ArgumentError("expected an inversion with the states it passed; invert with keep=Keep('states')")
    conditions = broadcast_conditions(one_condition(condition, prompt), len(images))
    if conditions is None:
        raise ArgumentError("guidance needs a condition to guide towards: give the one that the images were inverted with")
    report = counter(on_step, total=len(images) * pivots.index)
    parts = []
    for rows in batches(len(images), batch_size):
        states = {level: state[rows].to(model.device) for level, state in pivots.states.items()}
        aims = {**states, 0: model.codec.encode(images[rows].to(model.device))}
        fit = _Fit(model, aims, pivots.index, guidance, iterations, rate, tolerance)
        conditional = Counted(model.denoiser(conditions[rows]))
        embeddings, losses, nfe = {}, {}, 0
        for moved in walk(conditional, pivots.latent[rows].to(model.device), grid.down(pivots.index), fit):
            level = moved.step.src.index
            embeddings[level], evaluations = moved.state
            nfe += evaluations
            if moved.residual is not None:
                losses[level] = moved.residual
            report(len(moved.x))
        parts.append(NullText(embeddings, losses, conditional.nfe + nfe))
    return _cat(parts)


@dataclass(frozen=True, eq=False)
class _Fit(Stepper):
    """A stepper down whose memory is the unconditional embedding, and how many evaluations of it the last move took."""

    model: Model
    aims: Mapping[int, Tensor]
    top: int
    guidance: float
    iterations: int
    rate: float
    tolerance: float

    def evaluations(self, moves: int) -> int:
        """At most: the conditional one, one before each step of Adam, and one after the last."""
        return moves * (2 + self.iterations)

    def init(self, x: Tensor) -> tuple[Tensor, int]:
        """The unconditional embedding, at least in single precision."""
        embedding = self.model.embed([None] * len(x))
        return as_state(embedding), 0

    def step(self, denoiser: Denoiser, x: Tensor, step: Step, state: Any = ()) -> Moved:
        """A guided move of DDIM, with the embedding fitted where there is something to aim at."""
        towards, aim = denoiser(x, step.src), self.aims.get(step.dst.index)

        def move(embedding: Tensor) -> Moved:
            away = NetworkDenoiser(self.model.network, self.model.prediction, embedding)
            eps = Guided(lambda _x, _level: towards, away, self.guidance)(x, step.src)
            there = transfer(x, eps, step)
            return Moved(step, there, eps, residual=None if aim is None else (there - aim).square().flatten(1).mean(1))

        share = 1 - step.src.index / self.top
        rate, enough = self.rate * (1 - RATE_FALL * share), self.tolerance + TOLERANCE_RISE * share
        return _descend(move, state[0], 0 if aim is None else self.iterations, rate, enough)


def _descend(move: Callable[[Tensor], Moved], embedding: Tensor, iterations: int, rate: float, enough: float) -> Moved:
    """The move after Adam on the residual of each item until that is below `enough`, with the memory of `_Fit`."""
    with gradients():
        embedding, taken = embedding.clone().requires_grad_(), 0
    adam = torch.optim.Adam([embedding], lr=rate)
    close = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device)
    while True:
        with gradients() if taken < iterations else undisturbed():
            moved = move(embedding)
        loss = moved.residual
        if loss is None or taken == iterations:
            break
        close |= loss.detach() < enough
        if bool(close.all()):
            break
        (embedding.grad,) = torch.autograd.grad(loss, embedding, torch.ones_like(loss))
        before, taken = embedding.detach().clone(), taken + 1
        adam.step()
        embedding.copy_(torch.where(per_item(close, before), before, embedding))
    state = (embedding.detach(), 1 + taken)
    return Moved(moved.step, moved.x.detach(), moved.eps.detach(), state, None if loss is None else loss.detach())


def _cat(parts: Sequence[NullText]) -> NullText:
    """Batches joined."""
    embeddings, losses = (
        {level: torch.cat([getattr(part, name)[level] for part in parts]) for level in getattr(parts[0], name)}
        for name in ("embeddings", "losses")
    )
    return NullText(embeddings, losses, max(part.nfe for part in parts))
