"""A run of `unsample invert` read back, for its inversions to be used again instead of made again.

The manifest says which model it was, and of which weights; the tensors are the latents, what the method stored beside them,
and, of a run that kept them, the states of the way up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..core.batching import batches
from ..core.ddim import DDIM
from ..core.model import Model
from ..core.starts import Start
from ..core.trajectory import Stored, Trajectory
from ..errors import ArgumentError, RunError
from ..methods.starts import parse_start
from ..models import load
from .directory import MANIFEST, Origin, Run, slug
from .settings import InvertSettings

__all__ = ["Inverted", "read_inverted", "run_in", "starts_of", "way_back"]


@dataclass(frozen=True)
class Inverted:
    """What a run of `invert` left behind of one of its starts.

    Attributes:
        run: Its directory and manifest.
        model: Its model, loaded.
        settings: How it was inverted; `forward` is the one start.
        images: Pixels in [-1, 1], shape (batch, channels, height, width).
        trajectory: The latents and what the method stored; if asked for, also the states of the way, clean ones among them.
    """

    run: Run
    model: Model
    settings: InvertSettings
    images: Tensor = field(repr=False)
    trajectory: Trajectory

    @property
    def items(self) -> list[str]:
        """The ids of its pictures."""
        return [item.id for item in self.run.manifest.items]


def run_in(place: object) -> Run | None:
    """The run in `place`; None if that is no path, or no manifest is there.

    Raises:
        RunError: A damaged manifest.
    """
    path = Path(place).expanduser() if isinstance(place, (str, Path)) else None
    return Run.load(path) if path and (path / MANIFEST).is_file() else None


def starts_of(run: Run) -> list[str]:
    """The starts of a run of `invert`.

    Raises:
        RunError: A run of another command.
    """
    starts = run.manifest.settings.get("forward")
    if run.manifest.command != "invert" or not isinstance(starts, list):
        raise RunError(f"expected a run of 'invert', given one of {run.manifest.command!r} in {run.path}")
    return [str(text) for text in starts]


def way_back(run: Run, tensors: Mapping[str, Tensor], start: str) -> tuple[str | None, Stored]:
    """How a run of `invert` sampled back from the latents of one start: by which method, and what that stored.

    The method is None where DDIM did it, with nothing but the latents.
    """
    settings = InvertSettings.model_validate(run.manifest.settings)
    kept = {name.removesuffix(f".{start}"): tensor for name, tensor in tensors.items() if name.endswith(f".{start}")}
    kept = {name.removeprefix("stored."): tensor for name, tensor in kept.items() if name.startswith("stored.")}
    alone = not kept and settings.sampler == DDIM()
    return None if alone else settings.method, Stored.of(kept)


def _loaded(origin: Origin, dtype: str) -> Model:
    return load(origin.source, size=origin.size, revision=origin.revision, variant=origin.variant, dtype=dtype)


def read_inverted(
    run: Run,
    start: str | Start | None = None,
    *,
    states: bool = False,
    loading: Callable[[Origin, str], Model] = _loaded,
) -> Inverted:
    """The inversions of a complete run, its model loaded and no network asked.

    Args:
        run: A complete one of `unsample invert`.
        start: Which of its starts; default is its last.
        states: Also the states of the way up, which the run must have kept; the clean ones are encoded anew.
        loading: The model of an origin in a precision; default is `unsample.load`.

    Raises:
        RunError: A run that is not complete, one of another command, or one of other weights than the model has now.
        ArgumentError: A start that the run does not have, states that it did not keep, or an inversion with guidance, under
            which nothing can be edited.
        ModelError: Its model cannot be loaded.
    """
    text, tensors = _which(run, start), run.tensors()
    settings = InvertSettings.model_validate({**run.manifest.settings, "forward": (text,)})
    origin = run.manifest.origin or Origin(source=settings.model)
    if settings.guidance != 1:
        raise ArgumentError(
            f"the run in {run.path} was inverted with guidance {settings.guidance:g}: editing takes one of guidance 1"
        )
    if states and settings.keep not in ("states", "all"):
        raise ArgumentError(
            f"the run in {run.path} kept no states, which a mask and a strength below 1 need: invert with --keep states"
        )
    model = loading(origin, settings.dtype)
    if model.digest != settings.model_digest:
        raise RunError(f"the run in {run.path} was made with other weights of {settings.model!r}; invert again with these")
    there = Trajectory(tensors[f"latent.{text}"], 0, settings.steps, 0, stored=way_back(run, tensors, text)[1])
    if states:
        there = replace(there, states=_states(run, model, settings, tensors["images"]))
    return Inverted(run, model, settings.model_copy(update={"origin": origin}), tensors["images"], there)


def _which(run: Run, start: str | Start | None) -> str:
    """The start of a run that is meant."""
    starts = starts_of(run)
    for text in starts[-1:] if start is None else starts:
        if start is None or start in (text, parse_start(text)):
            return text
    raise ArgumentError(f"the run in {run.path} has the starts {', '.join(starts)}, not {start}")


@torch.no_grad()
def _states(run: Run, model: Model, settings: InvertSettings, images: Tensor) -> dict[int, Tensor]:
    """The states of all its batches, and the clean ones."""
    rows, key = list(batches(len(images), settings.batch_size)), slug(settings.forward[0])
    parts = [Trajectory.load(run.path / "trajectories" / f"{key}.{each.start:06d}.safetensors") for each in rows]
    clean = [model.codec.encode(images[each].to(model.device)).cpu() for each in rows]
    return {**Trajectory.cat(parts).states, 0: torch.cat(clean)}
