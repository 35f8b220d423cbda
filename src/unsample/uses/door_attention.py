"""Editing by attention: `edit_attention` of a latent, or of a picture, which is inverted first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..core.batching import OnStep
from ..core.corrections import Corrected
from ..core.ddim import DDIM
from ..core.grid import Grid
from ..core.model import Condition
from ..core.starts import Start
from ..core.stepper import Stepper
from ..core.trajectory import Keep, Trajectory
from ..errors import ArgumentError
from ..methods.registry import DEFAULT_METHOD, DEFAULT_START
from . import attention as editors
from .attention import Edited, Editor
from .door_moves import Way
from .masks import Cells
from .sources import Picture, Size, Source, for_latents, with_images

__all__ = ["edit_attention"]

STEPS = 50
"""Moves of the whole grid, where nothing says how many."""


def edit_attention(
    model: Source,
    latent: Tensor | Trajectory | Picture | Sequence[Picture],
    *,
    editor: Editor,
    source: Condition,
    targets: Sequence[Condition],
    size: Size | None = None,
    guidance: float = 1.0,
    negative: Condition | Mapping[int, Tensor] = None,
    steps: int | None = None,
    method: Stepper = DDIM(),
    source_latents: Mapping[int, Tensor] | None = None,
    mask: Cells | None = None,
    inversion: Stepper | Corrected = DEFAULT_METHOD,
    start: Start = DEFAULT_START,
    seed: int = 0,
    grid: Grid | None = None,
    tokenizer: Any = None,
    on_step: OnStep | None = None,
) -> Edited:
    """The source and its edits, sampled together from the source's latent.

    The source is evaluated along with its targets, for they need its attention; nothing of theirs reaches its row. A picture
    is inverted first, under `source` and without guidance, and comes back on the states that it passed; the result's `nfe`
    is then that of both ways.

    Args:
        model: Of Stable Diffusion 1, 2 or XL: a `Model`, a live pipeline, or what `unsample.load` takes by name. Its pipeline
            is left as it was.
        latent: One picture, as `unsample.invert` takes it. Or an inversion of one image, or states, a tensor
            (1, *model.shape), or one per row, (1 + targets, *model.shape); a tensor is never pixels. What an exact method
            stored besides is not used.
        editor: `MasaCtrl`, `StyleAligned` or `PromptToPrompt`, with its options.
        source: The prompt that the image is, or was, inverted with.
        targets: A prompt for each edit.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with picture or latent.
        guidance: w in eps_u + w (eps_c - eps_u), of all rows; 1 is conditional only.
        negative: What guidance moves away from: a prompt, or embeddings by level, of one row, as `unsample.null_text` finds.
        steps: N, moves of the whole grid; default is the level an inversion ended at, or 50.
        method: How a move is made; none that adds noise.
        source_latents: Level -> the source's state there, as in `Trajectory.states`: it is put on them as it comes by. Of a
            picture, default is those of its inversion; {} for none.
        mask: True where a target's state may change, (targets or 1, cell height, cell width), as of
            `unsample.uses.masks.difference_mask`; elsewhere it is put on the source's, at the levels of `source_latents`.
        inversion: The method that a picture is inverted by.
        start: Where its inversion starts; below, no state is known, and the source goes on from the last one.
        seed: For the start's noise.
        grid: The levels to visit; default is the model's own.
        tokenizer: The pipeline's, for `PromptToPrompt`; default is the one of the model's conditioner, if that has one.
        on_step: Called after each move, for progress bars.

    Raises:
        ModelError: A model that is no U-Net of Stable Diffusion, or whose attention is already changed.
        ArgumentError: A latent of the wrong shape, prompts that an editor cannot compare, or settings that do not fit.
        DivergenceError: A latent that is not finite.
        ImageError: A picture that is missing, unreadable or too small.
    """
    how: dict[str, Any] = {"editor": editor, "source": source, "targets": targets, "guidance": guidance, "negative": negative}
    how |= {"method": method, "tokenizer": tokenizer, "mask": mask}
    if isinstance(latent, (Tensor, Trajectory)):
        ready = for_latents(model, latent if isinstance(latent, Tensor) else latent.latent, size)
        more: dict[str, Any] = {"steps": steps, "grid": grid, "source_latents": source_latents, "on_step": on_step}
        return editors.edit_attention(ready, latent, **how, **more)
    ready, pixels = with_images(model, latent, size)
    levels = grid or ready.grid(STEPS if steps is None else steps)
    _check(len(pixels), len(targets), inversion)
    editors.bound(ready, editor, source, targets, tokenizer)  # refused before any work
    way = Way(inversion, start, levels, (1 + len(targets)) * levels.steps, on_step)
    there, down = way.up(ready, pixels, condition=source, seed=seed, keep=Keep("states"))
    states = there.states if source_latents is None else source_latents
    found = editors.edit_attention(ready, there, grid=levels, source_latents=states, on_step=down, **how)
    return replace(found, nfe=there.nfe + found.nfe)


def _check(pictures: int, targets: int, inversion: Stepper | Corrected) -> None:
    if pictures > 1:
        raise ArgumentError(f"expected one picture, the source, given {pictures}: edit one source at a time")
    if targets == 0:
        raise ArgumentError("expected a prompt for each target, given none")
    if inversion.inversion is None:
        raise ArgumentError(f"{inversion} passes no states on a way up: choose another inversion, such as LookAhead()")
