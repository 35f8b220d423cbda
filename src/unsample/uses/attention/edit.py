"""Editing by attention: a source and its targets are sampled side by side, and the targets use the source's attention.

`edit_attention` takes an editor with its options. The source's row is plain sampling: the targets need its queries, keys and
values, and nothing of theirs reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._arguments import Idle, one_of, optional, whole
from ..._tensors import brief
from ...core.batching import OnStep, counter
from ...core.corrections import Corrected
from ...core.ddim import DDIM
from ...core.denoiser import Counted
from ...core.grid import Grid
from ...core.model import Condition, Model
from ...core.stepper import Moved, Stepper
from ...core.trajectory import Keep, Trajectory
from ...core.walk import walk
from ...errors import ArgumentError, DivergenceError
from ...methods.registry import DEFAULT_METHOD, DEFAULT_START
from ...methods.stochastic import Stochastic
from ..door import NEGATIVE, MethodLike, SamplerLike, StartLike, inverted, read_mask, read_sampler, use
from ..invert import invert_first
from ..masks import Cells, warn_of_nothing
from ..sources import Picture, Size, Source, grid_of, opened, opened_for_latents
from .editors import Editor
from .hooks import AttentionChange, Moment, changed_attention, layers_of, unet_of, watched
from .registry import EditorLike, read_editor


@brief
@dataclass(frozen=True, eq=False)
class AttentionEdit:
    """The images of `edit_attention`.

    Attributes:
        images: The source, then each target; nominally in [-1, 1], not clamped; (1 + targets, channels, height, width).
        nfe: Network evaluations per item.
    """

    images: Tensor
    nfe: int

    @property
    def source(self) -> Tensor:
        """The source, sampled back, (1, channels, height, width)."""
        return self.images[:1]

    @property
    def targets(self) -> Tensor:
        """The edits, (targets, channels, height, width)."""
        return self.images[1:]


def _cells(name: str, value: Any) -> Any:
    return read_mask(name, one_of("a tensor of latent cells", Tensor)(name, value))


@use(
    {"editor": read_editor, "method": read_sampler, "steps": optional(whole(1)), "mask": optional(_cells)},
    [
        NEGATIVE,
        inverted("inversion", "start", "seed"),
        Idle(
            ("mask",),
            lambda given: isinstance(given.images, (Tensor, Trajectory)) and not given.source_latents,
            "without source_latents, the states that the rest is set to",
        ),
    ],
    latent="images",
    targets="to",
)
def edit_attention(
    model: Source,
    images: Tensor | Trajectory | Picture | Sequence[Picture],
    *,
    editor: EditorLike,
    source: Condition,
    to: Sequence[Condition],
    size: Size | None = None,
    guidance: float = 3.0,
    negative: Condition | Mapping[int, Tensor] = None,
    steps: int | None = None,
    method: SamplerLike = DDIM(),
    source_latents: Mapping[int, Tensor] | None = None,
    mask: Cells | None = None,
    inversion: MethodLike = DEFAULT_METHOD,
    start: StartLike = DEFAULT_START,
    seed: int = 0,
    grid: Grid | None = None,
    tokenizer: Any = None,
    on_step: OnStep | None = None,
) -> AttentionEdit:
    """The source and its edits, sampled together from the source's latent.

    The source is evaluated along with its targets, because they need its attention; nothing of theirs reaches its row. A
    picture is inverted first, under `source` and without guidance, and sampled back through the states that it passed; `nfe`
    then counts both.

    Args:
        model: Of Stable Diffusion 1, 2 or XL: a `Model`, a live pipeline, or what `unsample.load` takes by name. Its pipeline
            is left as it was.
        images: One picture, as `unsample.invert` takes it. Or an inversion of one image, or states, a tensor
            (1, *model.shape), or one per row, (1 + targets, *model.shape); a tensor is never pixels. What an exact method
            stored besides is not used.
        editor: `MasaCtrl`, `StyleAligned` or `PromptToPrompt`, with its options; or as on the command line, "masactrl".
        source: The prompt that the image is, or was, inverted with.
        to: A prompt for each edit.
        size: Height and width to make a model of, as in `unsample.invert`; default is what goes with picture or latent.
        guidance: w in eps_u + w (eps_c - eps_u), of all rows; 1 is conditional only.
        negative: What guidance moves away from: a prompt, or embeddings by level, of one row, as `unsample.null_text` finds.
        steps: N, moves of the whole grid; default is 50, or the inversion's.
        method: How a move is made; none that adds noise.
        source_latents: Level -> the source's state there, as in `Trajectory.states`, which it is set to on the way down. For a
            picture, default is those of its inversion; {} for none.
        mask: True where a target's state may change, (targets or 1, cell height, cell width), or from 0.5 on, as of
            `unsample.uses.masks.difference_mask`; elsewhere it is set to the source's, at the levels of `source_latents`.
        inversion: The method that a picture is inverted by, or its name.
        start: Where its inversion starts; below that level no state is known, and the source goes on from the last one.
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
    targets = [to] if to is None or isinstance(to, (str, int)) else list(to)
    prompts, spent = [source, *targets], 0
    top: int | None = None
    if isinstance(images, Tensor):
        model, x = opened_for_latents(model, images, size)
        grid = grid_of(model, steps, grid)
    elif isinstance(images, Trajectory):
        (model, x), top = opened_for_latents(model, images.latent, size), images.index
        grid = grid_of(model, steps, grid, images) if images.grid else grid_of(model, steps or top, grid)
    else:
        model, pixels = opened(model, images, size)
        grid = grid_of(model, steps, grid)
        _check_picture(len(pixels), len(targets), inversion)
        bound(model, editor, source, targets, tokenizer)  # refused before any network call
        there, on_step = invert_first(
            model,
            pixels,
            method=inversion,
            start=start,
            grid=grid,
            moves_after=len(prompts) * grid.steps,
            on_step=on_step,
            condition=source,
            seed=seed,
            keep=Keep("states"),
        )
        x, top, spent = there.latent, there.index, there.nfe
        source_latents = there.states if source_latents is None else source_latents
    unet, x = unet_of(model), _rows(model, x, len(prompts))
    if isinstance(method, Stochastic):
        raise ArgumentError(f"{method} adds noise, in which the source and its targets would differ: use DDIM()")
    change, moment = bound(model, editor, source, targets, tokenizer), Moment(grid.steps)
    away = negative if isinstance(negative, Mapping) else [negative] * len(prompts) if negative is not None else None
    _check_one_row(negative=negative if isinstance(negative, Mapping) else {}, source_latents=source_latents or {})
    for level, known in (source_latents or {}).items():
        if tuple(known.shape[1:]) != model.shape:
            raise ArgumentError(
                f"expected source_latents of shape (1, *{model.shape}), given {tuple(known.shape)} at level {level}"
            )
    denoiser = Counted(watched(model.denoiser(prompts, guidance, away), moment))
    moves, pinned = grid.steps if top is None else top, _Pinned(source_latents or {}, _free(mask, model, len(targets)))
    report = counter(on_step, total=len(x) * moves)
    with changed_attention(unet, change, moment):
        for moved in walk(denoiser, x, grid.down(moves), method, correct=pinned):
            x = moved.x
            report(len(x))
    return AttentionEdit(model.codec.decode(x), spent + denoiser.nfe)


def bound(
    model: Model, editor: Editor, source: Condition, targets: Sequence[Condition], tokenizer: Any = None
) -> AttentionChange:
    """What an editor changes for these prompts in this model; what it cannot do is refused, before any work.

    Raises:
        ModelError, ArgumentError: As `edit_attention`.
    """
    layers = list(layers_of(unet_of(model)).values())
    texts = [prompt if isinstance(prompt, str) else "" for prompt in (source, *targets)]
    return editor.bound(texts, tokenizer or getattr(model.conditioner, "tokenizer", None), layers, model.device)


def _rows(model: Model, latent: Tensor, rows: int) -> Tensor:
    """A state for the source and each target."""
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
    if mask.ndim != 3 or tuple(mask.shape[1:]) != model.shape[1:] or len(mask) not in (1, targets):
        height, width = model.shape[1:]
        raise ArgumentError(f"expected a mask of shape (1 or {targets}, {height}, {width}), given {tuple(mask.shape)}")
    free = mask if mask.dtype == torch.bool else mask >= 0.5
    warn_of_nothing(free)
    return free[:, None].to(model.device)


def _check_picture(pictures: int, targets: int, inversion: Stepper | Corrected) -> None:
    if pictures > 1:
        raise ArgumentError(f"expected one picture, the source, given {pictures}: edit one source at a time")
    if targets == 0:
        raise ArgumentError("expected a prompt for each target, given none")
    if inversion.inversion is None:
        raise ArgumentError(f"{inversion} passes no states on a way up: choose another inversion, such as LookAhead()")


def _check_one_row(**tensors: Mapping[int, Tensor]) -> None:
    for name, by_level in tensors.items():
        for level, tensor in by_level.items():
            if len(tensor) != 1:
                raise ArgumentError(f"expected {name} of one row, the source's, given {len(tensor)} at level {level}")


@dataclass(frozen=True, eq=False)
class _Pinned:
    """Sets the source to known states, and its targets to the same where they may not change."""

    states: Mapping[int, Tensor]
    free: Tensor | None

    def __call__(self, moved: Moved) -> Tensor:
        """The state after a move, with what is known set."""
        known = self.states.get(moved.step.dst.index)
        if known is None:
            return moved.x
        known, targets = known.to(moved.x), moved.x[1:]
        return torch.cat([known, targets if self.free is None else torch.where(self.free, targets, known)])
