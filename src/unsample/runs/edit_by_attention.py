"""What `unsample edit --editor` adds: what it refuses, and each picture beside its targets (`editors/pictures.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.trajectory import Trajectory
from ..errors import ArgumentError
from ..uses.attention import Named, SourcePicture, bound, samples_from_latent
from ..uses.edit import Edit
from .directory import Run
from .inversions import settings_of
from .work import Work


def check_kept(place: Path) -> None:
    """Refuse a run of `invert` without the states that a picture is put on.

    Raises:
        ArgumentError: It kept none.
        RunError: No run of `invert`.
    """
    run = Run.load(place)
    if settings_of(run).keep not in ("states", "all"):
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
    if not samples_from_latent(work.inversion.inversion):
        raise ArgumentError(
            f"--editor: targets walk down from the latent alone, and {work.inversion.method} stores more than that: "
            "choose another --method, like auto or direct"
        )
    if named.fresh and strength < 1:
        raise ArgumentError(
            f"--strength {strength:g}: noise of the targets' own is at the noisy end: leave out --strength, or give the "
            "editor the option fresh=False"
        )


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
    settings = work.inversion
    own: dict[str, Any] = {"source": settings.label, "grid": settings.grid(work.model), "method": settings.inversion}
    alone = [there.take(torch.tensor([i], device="cpu")) for i in range(len(items))]
    rows = [SourcePicture(work.model, each, item=item, seed=seed, **own) for each, item in zip(alone, items, strict=True)]
    done = [row.edit(named, to, guidance, mask) for row in rows]
    made = []
    for i in range(len(to)):
        masks = [one.mask[i : i + 1] for one in done if one.mask is not None]
        images = torch.cat([one.images[i : i + 1] for one in done])
        made.append(replace(done[0], images=images, trajectory=there, mask=torch.cat(masks) if masks else None))
    return made
