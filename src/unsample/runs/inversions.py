"""The tensors of a run of `invert`, read back and checked: each must be what its name says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.grid import Grid
from ..core.schedule import Level
from ..core.trajectory import Trajectory
from ..errors import RunError
from ..methods.registry import spelled
from .directory import TENSORS, Run
from .parts import stored_of
from .settings import InvertSettings

KEPT = ("states", "eps", "residuals")
"""What a trajectory keeps of the way up, by level."""


def settings_of(run: Run) -> InvertSettings:
    """How a run of `invert` was made.

    Raises:
        RunError: A run of another command, or settings that are not those of an inversion.
    """
    if run.manifest.command != "invert":
        raise RunError(f"expected a run of 'invert', given one of {run.manifest.command!r} in {run.path}")
    return InvertSettings.read(run)


def starts_of(run: Run) -> list[str]:
    """The starts of a run of `invert`.

    Raises:
        RunError: A run of another command.
    """
    return list(settings_of(run).forward)


def inverted_tensors(run: Run) -> dict[str, Tensor]:
    """The tensors of a complete run of `invert`.

    Raises:
        RunError: It is of another command or not complete, or a tensor is damaged, missing, or not what its name says.
    """
    settings, tensors = settings_of(run), run.tensors()
    count = len(run.manifest.items)
    images = _checked(run, tensors, "images", (count, None, *(settings.image_size or (None, None))))
    numbers = [name for name in tensors if name.partition(".")[0] in ("residual", "timestep")]
    for text in settings.forward:
        latent = _checked(run, tensors, f"latent.{text}", (count, None, None, None))
        _checked(run, tensors, f"reconstruction.{text}", images.shape, finite=False)
        for name in (f"start.{text}", f"nfe_up.{text}"):
            _checked(run, tensors, name, (count,), whole=True)
        for name in tensors:
            if name.startswith("stored.") and name.endswith(f".{text}"):
                _checked(run, tensors, name, latent.shape if tensors[name].ndim > 1 else (count,))  # numbers of each item
    for name in numbers:
        _checked(run, tensors, name, (count,), finite=False)
    if "codec" in tensors:
        _checked(run, tensors, "codec", images.shape, finite=False)
    return tensors


def levels_of(starts: Tensor, times: Tensor, grid: Grid) -> tuple[Level, ...]:
    """The level that each picture started from."""
    return tuple(
        grid[start] if grid[start].t == t else grid.at(t) for start, t in zip(starts.tolist(), times.tolist(), strict=True)
    )


def trajectory_of(tensors: Mapping[str, Tensor], settings: InvertSettings, grid: Grid) -> Trajectory:
    """The way up from one start, from the tensors that `invert_batch` returns; those of runs of 0.1.0 have no `timestep`."""
    kept: dict[str, Any] = {name: {} for name in KEPT}
    for name, tensor in tensors.items():
        kind, _, level = name.partition(".")
        if kind in kept:
            kept[kind][int(level)] = tensor
    starts, costs = (tuple(tensors[name].tolist()) for name in ("start", "nfe_up"))
    kept |= {"starts": starts if len(set(starts)) > 1 else (), "costs": costs if len(set(costs)) > 1 else ()}
    if "timestep" in tensors:
        kept["start_levels"] = levels_of(tensors["start"], tensors["timestep"], grid)
    kept |= {"stored": stored_of(tensors, grid.steps), "grid": grid}
    kept |= {"method": spelled(settings.inversion), "schedule": settings.schedule_digest}
    return Trajectory(tensors["latent"], min(starts), grid.steps, max(costs), **kept)


def _checked(
    run: Run,
    tensors: Mapping[str, Tensor],
    name: str,
    shape: Sequence[int | None],
    *,
    whole: bool = False,
    finite: bool = True,
) -> Tensor:
    """The tensor called `name`, if it has this shape (None is any length but 0) and holds such numbers."""
    tensor, kinds = tensors.get(name), (torch.int64, torch.int32) if whole else (torch.float32, torch.float64)
    fault, pairs = "", [] if tensor is None else list(zip(tensor.shape, shape, strict=False))
    if tensor is None:
        fault = "is missing"
    elif tensor.dtype not in kinds:
        fault = f"is of {tensor.dtype}"
    elif len(tensor.shape) != len(shape) or any(want not in (None, n) for n, want in pairs):
        fault = f"has the shape {list(tensor.shape)}"
    elif not tensor.numel():
        fault = "is empty"
    elif finite and not bool(torch.isfinite(tensor).all()):
        fault = "is not finite"
    if tensor is None or fault:
        raise RunError(f"{run.path / TENSORS} is damaged: {name} {fault}; delete the folder and run again")
    return tensor
