"""A run directory of pictures sampled from true noise, or from the latents of another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .. import pictures as plotting
from ..core.batching import OnStep
from ..core.model import Condition, Model
from ..core.stored import Stored
from ..errors import DivergenceError
from ..uses.sample import draw_noise, sample
from .directory import Run
from .engine import Local
from .manifest import Item
from .parts import Batch, cost_of, joined, made_parts
from .settings import InvertSettings, SampleSettings
from .tensor_file import Part


def sample_batch(
    model: Model,
    settings: InvertSettings | SampleSettings,
    latents: Tensor,
    condition: Condition | Sequence[Condition],
    negative: Condition,
    stored: Stored,
    on_step: OnStep | None = None,
) -> dict[str, Tensor]:
    """`samples` from a batch of latents, and the network evaluations of each, `nfe`.

    Raises:
        DivergenceError: A sample is not finite.
    """
    back = sample(
        model,
        latents,
        grid=settings.grid(model),
        method=settings.sampler,
        condition=condition,
        guidance=settings.guidance,
        negative=negative,
        stored=stored,
        on_step=on_step,
    )
    if not bool(torch.isfinite(back.images).all()):
        raise DivergenceError("a sample left the finite numbers; try a smaller guidance, more steps, or float32")
    return {"samples": back.images.cpu(), "nfe": torch.full((len(latents),), back.nfe, device="cpu")}


def sampled_parts(
    run: Run,
    model: Model,
    settings: InvertSettings | SampleSettings,
    latents: Tensor,
    condition: Condition | Sequence[Condition],
    on_step: OnStep | None,
    negative: Condition = None,
    stored: Stored = Stored(),
) -> list[Part]:
    """The parts of a run that samples all `latents`; `condition` is one for all, or a list with one for each."""
    work = []
    for key, rows in run.tiles("", len(latents), settings.batch_size):
        own = condition[rows] if isinstance(condition, list) else condition
        arguments = (settings, latents[rows], own, negative, stored.take(rows))
        work.append(Batch(key, rows, arguments, (rows.stop - rows.start) * settings.steps))
    return made_parts(run, Local(model), sample_batch, work, on_step)


def sample_images(
    model: Model,
    settings: SampleSettings,
    out: Path,
    on_step: OnStep | None = None,
    latents: Tensor | None = None,
    names: Sequence[str] | None = None,
    stored: Stored = Stored(),
) -> Run:
    """Sample from true noise, or from the `latents` of a run; writes the pictures and a sheet of them.

    `stored` is what the method they were made with, that of the settings, needs on the way down.

    Raises:
        RunError: `out` holds something else, or cannot be written.
        DivergenceError: A sample is not finite.
    """
    height, width = model.image_size
    names = names or [f"{i:04d}" for i in range(settings.count)]
    items = [Item(name=name, id=str(i), width=width, height=height) for i, name in enumerate(names)]
    run = settings.open(out, "sample" if latents is None else "reconstruct", items)
    if not run.complete:
        noise = draw_noise(model, settings.count, seed=settings.seed) if latents is None else latents
        parts = sampled_parts(run, model, settings, noise, settings.label, on_step, settings.negative, stored)
        tensors = {"samples": joined(parts)["samples"], "latent": noise.cpu()}
        run.finish(tensors, {"cost": {"sample": cost_of(parts)}})

    def draw() -> None:
        samples = run.tensors()["samples"]
        run.write_images("samples", samples)
        run.write("overview.png", plotting.sheet(samples, None if latents is None else names))

    run.draw(draw)
    return run
