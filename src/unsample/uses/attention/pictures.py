"""Inverted pictures edited by attention: each is sampled beside its targets, through the states of its own inversion.

Level by level it is set to those states, so that the targets attend to the picture itself whatever the guidance, which moves
away from the picture's prompt as without an editor. With `fresh` the targets start from their own noise, for other things in
the picture's style (StyleAligned).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..._tensors import Images, undisturbed
from ...core.corrections import Corrected
from ...core.grid import Grid
from ...core.model import Condition, Model
from ...core.rng import ItemNoise
from ...core.starts import Start
from ...core.stepper import Stepper
from ...core.trajectory import Keep, Trajectory
from ...errors import DivergenceError
from ...methods.stochastic import Stochastic
from ..edit import Edit
from ..masks import AUTO, Cells, Mask, cells_of, difference_mask, mask_tensor
from ..turning import pivots_of, walked_up
from .edit import edit_attention
from .registry import Named


def samples_from_latent(method: Stepper | Corrected) -> bool:
    """Whether sampling back needs only the latent: no second state, recorded eps or noise, which targets do not have.

    >>> from unsample import parse_method
    >>> [samples_from_latent(parse_method(name)) for name in ("ddim", "direct", "edict", "edit-friendly")]
    [True, True, False, False]
    """
    sampler = method.sampler
    replays = isinstance(method, Corrected) and method.keeps == "eps"
    return not (isinstance(sampler, Stochastic) or sampler.reversible or replays)


@undisturbed()
def inverted_with_states(
    model: Model,
    images: Images,
    *,
    source: Sequence[Condition],
    method: Stepper | Corrected,
    start: Start,
    grid: Grid,
    seed: int,
    items: Sequence[str],
) -> Trajectory:
    """Inversions to the noisy end, with a state at every level: below a forward start those on the line of its noise.

    Args:
        model: Of the images' size.
        images: Shape (batch, channels, height, width), in [-1, 1].
        source: The condition of each.
        method: How a move is made.
        start: Where the walk starts.
        grid: The levels.
        seed: For the start's noise, together with `items`.
        items: One id per image.

    Raises:
        ArgumentError: Images of another shape.
        DivergenceError: A state that is not finite.
    """
    noise, top = ItemNoise(seed, items), grid.steps
    there = walked_up(model, images, None, method, start, grid, top, noise, keep=Keep("states"), condition=source)
    return replace(there, states=pivots_of(there.states, grid, top))


@dataclass(frozen=True)
class SourcePicture:
    """The inversion of one picture, to be edited by attention.

    Attributes:
        model: Of Stable Diffusion 1, 2 or XL.
        there: The inversion of one picture, with states down to the clean one.
        source: The condition it was inverted under.
        grid: Its levels.
        method: How it was inverted; `samples_from_latent` holds for it.
        item: Its id.
        seed: For the targets' own noise and that of an automatic mask, together with `item`.
    """

    model: Model
    there: Trajectory
    source: Condition
    grid: Grid
    method: Stepper | Corrected
    item: str
    seed: int

    def edit(self, named: Named, to: Sequence[Condition], guidance: float, mask: Mask | None) -> Edit:
        """One edit per target; `nfe_down` is that of one row, and the picture's own row comes once beside them.

        Args:
            named: The editor.
            to: The targets.
            guidance: w; it moves away from the picture's own prompt.
            mask: Where the picture may change, as in `unsample.edit`; None for everywhere.

        Raises:
            ModelError, ArgumentError: As `edit_attention`.
            DivergenceError: A target that is not finite.
        """
        cells, nfe_mask = self._cells(to, mask)
        there = self.there  # of what it kept, the targets have the states alone, as those of their source
        latents = self._latents(named.fresh, to, cells)
        done = edit_attention(
            self.model,
            Trajectory(latents, there.start, there.index, there.nfe, grid=there.grid, schedule=there.schedule),
            editor=named.editor,
            source=self.source,
            to=to,
            guidance=guidance,
            negative=self.source,
            grid=self.grid,
            method=self.method.sampler,
            source_latents=there.states,
            mask=cells,
        )
        if not bool(torch.isfinite(done.images).all()):
            raise DivergenceError(
                f"an edit left the finite numbers; try a guidance below {guidance:g}, more steps, or float32"
            )
        return Edit(done.targets, there, cells, 0, done.nfe, nfe_mask)

    def _cells(self, to: Sequence[Condition], mask: Mask | None) -> tuple[Cells | None, int]:
        """Where each target may change, (targets, cell height, cell width), and what it cost."""
        if mask is None:
            return None, 0
        model, count = self.model, len(to)
        if not isinstance(mask, str) or mask != AUTO:
            return cells_of(model, mask_tensor(mask, model.image_size), count), 0
        clean, items = self.there.states[0].expand(count, *model.shape), [self.item] * count
        return difference_mask(model, clean, to=to, source=self.source, grid=self.grid, seed=self.seed, items=items)

    def _latents(self, fresh: bool, to: Sequence[Condition], cells: Tensor | None) -> Tensor:
        """The picture's latent; with `fresh`, followed by each target's noise, drawn from (seed, item, target)."""
        x = self.there.latent
        if not fresh:
            return x
        noise = ItemNoise(self.seed, [self.item])
        drawn = [noise.draw(x.shape, stream=f"edit {name}", dtype=x.dtype, device=x.device) for name in to]
        own = torch.cat(drawn)
        return torch.cat([x, own if cells is None else torch.where(cells[:, None].to(x.device), own, x)])
