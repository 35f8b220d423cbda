"""Photographs to a run directory of `invert`: their latents from each start, and what is sampled back from them.

A batch is inverted by one function of tensors, which an engine maps over the batches. Batches are cut the same way every time,
and are stored as they finish, so an interrupted run ends bit-identical to one that was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.batching import OnStep, batches
from ..core.grid import Grid
from ..core.model import Condition, Model
from ..core.starts import Start
from ..core.trajectory import Keep
from ..diagnostics import Diagnosis
from ..errors import DivergenceError
from ..methods.starts import AutoStart, whiteness_text
from ..pictures.read import Photo, Rejected
from ..uses.invert import invert
from ..uses.sample import sample
from .directory import Run
from .engine import Engine, Local
from .inversions import KEPT, inverted_tensors, levels_of, trajectory_of
from .names import slug
from .parts import Batch, cost_of, item_of, joined, made_parts
from .report import diagnose_tensors, start_place, write_pictures, write_report
from .settings import InvertSettings


def invert_batch(
    model: Model,
    settings: InvertSettings,
    start: Start,
    pixels: Tensor,
    ids: Sequence[str],
    conditions: Sequence[Condition] | None = None,
    *,
    back: bool = True,
    on_step: OnStep | None = None,
) -> dict[str, Tensor]:
    """The latents of a batch of pictures from one start, and the pictures sampled back from them.

    It reads and writes no files and depends on its arguments alone, so it may run anywhere.

    Args:
        model: What `unsample.load` returns.
        settings: How to invert.
        start: One of `settings.starts`.
        pixels: In [-1, 1], shape (batch, channels, height, width).
        ids: With the seed, they decide the noise of the start.
        conditions: One per picture, in place of that of the settings.
        back: Sample back, too.
        on_step: Called with (item moves done, item moves in all).

    Returns:
        On the CPU, one row per picture: `latent`, `reconstruction` (with `back`), `start` (level), `timestep` (of the start),
        `nfe` and `nfe_up` (evaluations); `residual` (the worst) of implicit methods; `stored.*`, which the method needs on the
        way down; `states.*`, `eps.*` and `residuals.*` by level as `settings.keep` says. Where a latent is not finite there
        is the latent alone.
    """
    grid, count = settings.grid(model), len(pixels)
    up = count * settings.inversion.moves(grid, start.level(grid).index, grid.steps)
    condition = settings.label if conditions is None else list(conditions)
    shared: dict[str, Any] = {"grid": grid, "condition": condition, "guidance": settings.guidance}

    def report(done: int, _total: int, before: int = 0) -> None:
        if on_step is not None:
            on_step(before + done, up + back * count * grid.steps)

    there = invert(
        model,
        pixels,
        method=settings.inversion,
        start=start,
        seed=settings.seed,
        items=ids,
        keep=Keep(settings.keep),
        on_step=report,
        **shared,
    )
    tensors = {"latent": there.latent}
    if bool(there.finite.all()):
        spent = 0
        if back:
            sampled = sample(model, there, on_step=lambda done, total: report(done, total, up), **shared)
            tensors["reconstruction"], spent = sampled.images, sampled.nfe
        tensors["start"] = torch.tensor(there.starts or (there.start,) * count, device="cpu")
        tensors["timestep"] = torch.tensor([level.t for level in there.start_levels], dtype=torch.float64, device="cpu")
        tensors["nfe_up"] = torch.tensor(there.costs or (there.nfe,) * count, device="cpu")
        tensors["nfe"] = torch.full((count,), there.nfe + spent, device="cpu")
        if there.residuals:
            tensors["residual"] = torch.stack(list(there.residuals.values())).amax(0)
        tensors |= {f"stored.{name}": tensor for name, tensor in there.stored.tensors().items()}
        for name in KEPT if settings.keep != "latent" else ():
            tensors |= {f"{name}.{level}": tensor for level, tensor in getattr(there, name).items()}
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def invert_photos(
    model: Model,
    photos: Sequence[Photo],
    settings: InvertSettings,
    out: Path,
    on_step: OnStep | None = None,
    rejected: Sequence[Rejected] = (),
) -> tuple[Run, dict[str, Diagnosis]]:
    """`invert_run`, diagnosed and drawn; the complete run and a diagnosis per start. `rejected` are listed in both reports."""
    run = invert_run(model, photos, settings, out, on_step)
    run.reject(rejected, shown=True)
    tensors = inverted_tensors(run)
    diagnoses = diagnose_tensors(tensors, settings.forward)

    def draw() -> None:
        write_pictures(run, tensors)
        run.add({"diagnoses": {name: diagnosis.to_dict() for name, diagnosis in diagnoses.items()}})
        write_report(run, tensors, diagnoses)

    run.draw(draw)
    return run, diagnoses


def invert_run(
    model: Model,
    photos: Sequence[Photo],
    settings: InvertSettings,
    out: Path,
    on_step: OnStep | None = None,
    engine: Engine | None = None,
) -> Run:
    """Invert `photos` from each start and sample back; the complete run.

    Args:
        model: What `settings` were made of.
        photos: In the order of the run.
        settings: How to invert.
        out: Its directory.
        on_step: For progress bars.
        engine: Where batches are worked on; default is here, one after the other.

    Raises:
        RunError: `out` holds something else, or cannot be written.
        DivergenceError: A latent is not finite; batches finished before are kept.
    """
    run = settings.open(out, "invert", [item_of(photo) for photo in photos])
    if run.complete:
        return run
    pixels = torch.stack([photo.pixels for photo in photos])
    tensors: dict[str, Tensor] = {"images": pixels}
    work = {text: list(_work(model, settings, text, pixels, run)) for text in settings.starts}
    every = [batch for own in work.values() for batch in own]
    received = partial(_received, run, settings, settings.grid(model))
    parts = iter(made_parts(run, engine or Local(model), invert_batch, every, on_step, received))
    costs: dict[str, dict[str, float]] = {}
    places: dict[str, str] = {}
    for text, own in work.items():
        made = list(islice(parts, len(own)))
        tensors |= {f"{name}.{text}": tensor for name, tensor in joined(made).items() if name != "nfe"}
        costs[text] = cost_of(made)
        if place := _place(settings, text, tensors, settings.grid(model)):
            places[text] = place
    if model.codec.scale > 1:
        tensors["codec"] = torch.cat([_coded(model, pixels[rows]) for rows in batches(len(photos), settings.batch_size)])
    run.finish(tensors, {"cost": costs, "starts": places})
    return run


def _work(model: Model, settings: InvertSettings, text: str, pixels: Tensor, run: Run) -> Iterator[Batch]:
    """The batches of one start."""
    start, grid = settings.starts[text], settings.grid(model)
    moves = settings.inversion.moves(grid, start.level(grid).index, grid.steps) + grid.steps
    for key, rows in run.tiles(f"{slug(text)}.", len(pixels), settings.batch_size):
        ids = [item.id for item in run.manifest.items[rows]]
        yield Batch(key, rows, (settings, start, pixels[rows], ids), moves * len(ids))


def _place(settings: InvertSettings, text: str, tensors: Mapping[str, Tensor], grid: Grid) -> str:
    """Where the pictures started, for people; "" if that was at the clean end, nothing walks up, or it is not known."""
    unknown = f"timestep.{text}" not in tensors  # in a run that an earlier version began
    if unknown or settings.inversion.inversion is None:
        return ""
    where = start_place(text, levels_of(tensors[f"start.{text}"], tensors[f"timestep.{text}"], grid), grid)
    if not isinstance(settings.starts[text], AutoStart):
        return where
    return f"{where}; {whiteness_text(tensors['images'], tensors[f'latent.{text}'])}"


def _received(
    run: Run, settings: InvertSettings, grid: Grid, batch: Batch, tensors: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """What is stored of a batch's tensors; the way up, if it was kept, is a file of its own."""
    fine = torch.isfinite(tensors["latent"]).flatten(1).all(1).tolist()
    bad = [item.name for item, finite in zip(run.manifest.items[batch.rows], fine, strict=True) if not finite]
    if bad:
        raise DivergenceError(
            f"the inversion of {', '.join(bad)} left the finite numbers; try guidance 1, float32, or a forward start"
        )
    if settings.keep != "latent":
        run.write(f"trajectories/{batch.key}.safetensors", trajectory_of(tensors, settings, grid).to_bytes())
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] not in KEPT}


@torch.no_grad()
def _coded(model: Model, images: Tensor) -> Tensor:
    """What the codec alone makes of images: no reconstruction is closer."""
    return model.codec.decode(model.codec.encode(images.to(model.device))).cpu()
