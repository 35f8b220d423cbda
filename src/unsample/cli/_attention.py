"""What `unsample edit --editor` adds: each picture and its targets walk down together, and the targets attend as it does.

The picture is put on the states of its own inversion, level by level, so that the targets see its way whatever the guidance,
which moves away from its prompt as without an editor. With `fresh` the targets begin at noise of their own, for other things
in the picture's style (StyleAligned).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..corrected import Corrected
from ..editing import Edit, difference_mask
from ..editing.masks import Cells, cells_of
from ..editors import Named, bound, edit_attention
from ..errors import ArgumentError, DivergenceError
from ..methods import sampler_of
from ..reuse import starts_of
from ..rng import ItemNoise
from ..steppers import is_reversible
from ..steppers.stochastic import Stochastic
from ..store import Run
from ..trajectory import Trajectory

if TYPE_CHECKING:
    from ._edits import Work

__all__ = ["attended", "check_attention", "check_kept"]


def check_kept(place: Path) -> None:
    """Refuse a run of `invert` without the states that a picture is put on.

    Raises:
        ArgumentError: It kept none.
        RunError: No run of `invert`.
    """
    run = Run.load(place)
    if starts_of(run) and run.manifest.settings.get("keep") not in ("states", "all"):
        raise ArgumentError(
            f"the run in {place} kept no states, which --editor needs: with a model of Stable Diffusion 1, 2 or XL, "
            "invert with --keep states"
        )


def check_attention(named: Named, work: Work, to: Sequence[str | None], strength: float) -> None:
    """Refuse what the editor cannot do with this model, method, prompts or strength, before any work.

    Raises:
        ModelError: A model without text attention.
        ArgumentError: Anything else.
    """
    bound(work.model, named.editor, work.inversion.label, to)
    method = work.inversion.inversion()
    sampler = sampler_of(method)
    if isinstance(sampler, Stochastic) or is_reversible(sampler) or (isinstance(method, Corrected) and method.keeps == "eps"):
        raise ArgumentError(
            f"--editor: targets walk down from the latent alone, and {work.inversion.method} stores more than that: "
            "choose another --method, like auto or direct"
        )
    if named.fresh and strength < 1:
        raise ArgumentError(
            f"--strength {strength:g}: noise of the targets' own is at the noisy end: leave out --strength, or give the "
            "editor the option fresh=False"
        )


@dataclass(frozen=True)
class _Picture:
    """One picture's inversion, with the states of its way, and what is wanted of it."""

    work: Work
    there: Trajectory
    item: str
    to: Sequence[str | None]
    seed: int

    def cells(self, mask: Tensor | str | None) -> tuple[Cells | None, int]:
        """Where each target may change, (targets, cell height, cell width), and what it cost."""
        if mask is None:
            return None, 0
        model, count = self.work.model, len(self.to)
        if isinstance(mask, Tensor):
            return cells_of(model, mask, count), 0
        clean = self.there.states[0].expand(count, *model.shape)
        grid, label = self.work.inversion.grid(model), self.work.inversion.label
        return difference_mask(model, clean, to=self.to, source=label, grid=grid, seed=self.seed, items=[self.item] * count)

    def latents(self, fresh: bool, cells: Tensor | None) -> Tensor:
        """The picture's latent, for all; or that, and noise for each target, which its name and the picture decide."""
        x = self.there.latent
        if not fresh:
            return x
        noise = ItemNoise(self.seed, [self.item])
        drawn = [noise.draw(x.shape, stream=f"edit {name}", dtype=x.dtype, device=x.device) for name in self.to]
        own = torch.cat(drawn)
        return torch.cat([x, own if cells is None else torch.where(cells[:, None].to(x.device), own, x)])

    def edit(self, named: Named, guidance: float, mask: Tensor | str | None) -> Edit:
        """All targets, a row for each."""
        cells, nfe_mask = self.cells(mask)
        settings = self.work.inversion
        done = edit_attention(
            self.work.model,
            replace(self.there, latent=self.latents(named.fresh, cells)),
            editor=named.editor,
            source=settings.label,
            targets=self.to,
            guidance=guidance,
            negative=settings.label,
            grid=settings.grid(self.work.model),
            method=sampler_of(settings.inversion()),
            source_latents=self.there.states,
            mask=cells,
        )
        if not bool(torch.isfinite(done.images).all()):
            raise DivergenceError(
                f"an edit left the finite numbers; try a guidance below {guidance:g}, more steps, or float32"
            )
        return Edit(done.targets, self.there, cells, 0, done.nfe, nfe_mask)


def attended(
    work: Work,
    there: Trajectory,
    items: Sequence[str],
    named: Named,
    to: Sequence[str | None],
    guidance: float,
    mask: Tensor | str | None,
    seed: int,
) -> list[Edit]:
    """The edits of pictures, one for each target.

    Args:
        work: The model, and how the pictures were inverted.
        there: Their inversions, with states down to the clean one.
        items: Their ids.
        named: The editor.
        to: The targets.
        guidance: Away from the pictures' own prompt.
        mask: Of the pictures, or `auto`.
        seed: For noise of the targets' own, and an automatic mask's.
    """
    rows = [_Picture(work, there.take(torch.tensor([i])), item, to, seed) for i, item in enumerate(items)]
    done = [row.edit(named, guidance, mask) for row in rows]
    made = []
    for i in range(len(to)):
        masks = [one.mask[i : i + 1] for one in done if one.mask is not None]
        images = torch.cat([one.images[i : i + 1] for one in done])
        made.append(replace(done[0], images=images, trajectory=there, mask=torch.cat(masks) if masks else None))
    return made
