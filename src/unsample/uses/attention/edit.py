"""A source and its targets walk down side by side, and the targets attend as the source does.

`edit_attention` takes an editor with its options. The source's row is a plain walk: the targets need what it attends to, and
nothing of theirs reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.batching import OnStep, counter
from ...core.ddim import DDIM
from ...core.denoiser import Counted
from ...core.grid import Grid
from ...core.model import Condition, Model
from ...core.stepper import Moved, Stepper
from ...core.trajectory import Trajectory
from ...core.walk import walk
from ...errors import ArgumentError, DivergenceError
from ...methods.stochastic import Stochastic
from ..masks import Cells
from .editors import Editor
from .hooks import Edit, Moment, edited, layers_of, unet_of, watched

__all__ = ["Edited", "bound", "edit_attention"]


@dataclass(frozen=True)
class Edited:
    """What `edit_attention` made.

    Attributes:
        images: The source, then each target; nominally in [-1, 1], not clamped; (1 + targets, channels, height, width).
        nfe: Network evaluations per item.
    """

    images: Tensor
    nfe: int

    @property
    def source(self) -> Tensor:
        """The source as it came back, (1, channels, height, width)."""
        return self.images[:1]

    @property
    def targets(self) -> Tensor:
        """(targets, channels, height, width)."""
        return self.images[1:]


@torch.no_grad()
def edit_attention(
    model: Model,
    latent: Tensor | Trajectory,
    *,
    editor: Editor,
    source: Condition,
    targets: Sequence[Condition],
    guidance: float = 1.0,
    negative: Condition | Mapping[int, Tensor] = None,
    steps: int | None = None,
    method: Stepper = DDIM(),
    source_latents: Mapping[int, Tensor] | None = None,
    mask: Cells | None = None,
    grid: Grid | None = None,
    tokenizer: Any = None,
    on_step: OnStep | None = None,
) -> Edited:
    """The source and its edits, sampled together from the source's latent.

    The source is evaluated along with its targets, for they need its attention; nothing of theirs reaches its row.

    Args:
        model: Of Stable Diffusion 1, 2 or XL, as `unsample.load` returns it. Its pipeline is left as it was.
        latent: An inversion of one image, or states (1, *model.shape), or one per row, (1 + targets, *model.shape). What an
            exact method stored besides is not used.
        editor: `MasaCtrl`, `StyleAligned` or `PromptToPrompt`, with its options.
        source: The prompt that the image was inverted with.
        targets: A prompt for each edit.
        guidance: w in eps_u + w (eps_c - eps_u), of all rows; 1 is conditional only.
        negative: What guidance moves away from: a prompt, or embeddings by level, of one row, as `unsample.null_text` finds.
        steps: N, moves of the whole grid; default is the level an inversion ended at, or 50.
        method: How a move is made; none that adds noise.
        source_latents: Level -> the source's state there, as in `Trajectory.states`: it is put on them as it comes by.
        mask: True where a target's state may change, (targets or 1, cell height, cell width), as of
            `unsample.uses.masks.difference_mask`; elsewhere it is put on the source's, at the levels of `source_latents`.
        grid: The levels to visit; default is the model's own.
        tokenizer: The pipeline's, for `PromptToPrompt`; default is the one of the model's conditioner, if that has one.
        on_step: Called after each move, for progress bars.

    Raises:
        ModelError: A model that is no U-Net of Stable Diffusion, or whose attention is already changed.
        ArgumentError: A latent of the wrong shape, prompts that an editor cannot compare, or settings that do not fit.
        DivergenceError: A latent that is not finite.
    """
    unet, prompts = unet_of(model), [source, *targets]
    top = latent.index if isinstance(latent, Trajectory) else None
    grid = grid or model.grid(steps or top or 50)
    x = _starting(model, latent.latent if isinstance(latent, Trajectory) else latent, len(prompts))
    if isinstance(method, Stochastic):
        raise ArgumentError(f"{method} adds noise, which would tell the source from its targets: use DDIM()")
    edit = bound(model, editor, source, targets, tokenizer)
    moment = Moment(grid.steps)
    away = negative if isinstance(negative, Mapping) else [negative] * len(prompts) if negative is not None else None
    _check_rows(negative=negative if isinstance(negative, Mapping) else {}, source_latents=source_latents or {})
    denoiser = Counted(watched(model.denoiser(prompts, guidance, away), moment))
    moves, pinned = grid.steps if top is None else top, _Pinned(source_latents or {}, _free(mask, model, len(targets)))
    report = counter(on_step, total=len(x) * moves)
    with edited(unet, edit, moment):
        for moved in walk(denoiser, x, grid.down(moves), method, correct=pinned):
            x = moved.x
            report(len(x))
    return Edited(model.codec.decode(x), denoiser.nfe)


def bound(model: Model, editor: Editor, source: Condition, targets: Sequence[Condition], tokenizer: Any = None) -> Edit:
    """The edit that an editor makes of these prompts in this model: what cannot be made is refused, before any work.

    Raises:
        ModelError, ArgumentError: As `edit_attention`.
    """
    layers = list(layers_of(unet_of(model)).values())
    texts = [prompt if isinstance(prompt, str) else "" for prompt in (source, *targets)]
    return editor.bound(texts, tokenizer or getattr(model.conditioner, "tokenizer", None), layers, model.device)


def _starting(model: Model, latent: Tensor, rows: int) -> Tensor:
    """A state for each row."""
    if rows < 2:
        raise ArgumentError("expected a prompt for each target, given none")
    if tuple(latent.shape[1:]) != model.shape or len(latent) not in (1, rows):
        raise ArgumentError(
            f"expected one latent, or one for the source and each target, of shape (1 or {rows}, "
            f"{', '.join(map(str, model.shape))}), given {tuple(latent.shape)}; edit one source at a time"
        )
    if not bool(torch.isfinite(latent).all()):
        raise DivergenceError("expected finite latents, given some with NaN or infinity: their inversion diverged")
    return latent.to(model.device).expand(rows, *model.shape)


def _free(mask: Tensor | None, model: Model, targets: int) -> Tensor | None:
    """A mask with a dimension for channels."""
    if mask is None:
        return None
    if tuple(mask.shape[1:]) != model.shape[1:] or len(mask) not in (1, targets):
        height, width = model.shape[1:]
        raise ArgumentError(f"expected a mask of shape (1 or {targets}, {height}, {width}), given {tuple(mask.shape)}")
    return mask[:, None].to(model.device)


def _check_rows(**tensors: Mapping[int, Tensor]) -> None:
    for name, by_level in tensors.items():
        for level, tensor in by_level.items():
            if len(tensor) != 1:
                raise ArgumentError(f"expected {name} of one row, the source's, given {len(tensor)} at level {level}")


@dataclass(frozen=True)
class _Pinned:
    """Puts the source on known states, and its targets where they may not change."""

    states: Mapping[int, Tensor]
    free: Tensor | None

    def __call__(self, moved: Moved) -> Tensor:
        """The state a move arrived at, with the known one in its place."""
        known = self.states.get(moved.step.dst.index)
        if known is None:
            return moved.x
        known, targets = known.to(moved.x), moved.x[1:]
        return torch.cat([known, targets if self.free is None else torch.where(self.free, targets, known)])
