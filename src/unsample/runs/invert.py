"""The jobs of the command line: photographs in, a run directory out.

Each job works in batches whose results are stored as they finish, so that it can be interrupted anywhere and resumed. Batches
are cut the same way every time, so an interrupted run ends bit-identical to one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import pictures as plotting
from ..core.batching import OnStep, batches
from ..core.model import Model
from ..core.starts import Start
from ..core.trajectory import Keep, Stored
from ..diagnostics import Diagnosis
from ..errors import DivergenceError
from ..methods.starts import parse_start
from ..pictures.read import Photo, png_bytes
from ..uses.invert import invert
from ..uses.sample import Samples, draw_noise, sample
from .directory import Item, Part, Run, slug
from .report import diagnose_tensors, write_pictures, write_report
from .settings import InvertSettings, SampleSettings

__all__ = ["cost_of", "invert_photos", "invert_run", "item_of", "sample_images", "sampled_batch"]


@dataclass
class Progress:
    """Adds up the moves of many walks for one progress bar."""

    on_step: OnStep | None
    total: int
    done: int = 0

    def walk(self, moves: int) -> OnStep:
        """What one walk of `moves` item moves reports to."""
        before, self.done = self.done, self.done + moves
        return lambda done, _total: self.on_step(before + done, self.total) if self.on_step else None

    def skip(self, moves: int) -> None:
        """Moves that an earlier attempt made."""
        self.walk(moves)(moves, moves)


@dataclass(frozen=True)
class _Inversion:
    """One start of a run of `invert`: a batch there and back."""

    model: Model
    settings: InvertSettings
    start: Start
    run: Run
    key: str
    progress: Progress

    def batch(self, pixels: Tensor, rows: slice) -> Part:
        """The batch `rows` of `pixels`: read back if it was finished before, made and stored otherwise."""
        key = f"{self.key}.{rows.start:06d}"
        grid, method = self.settings.grid(self.model), self.settings.inversion()
        up = method.moves(grid, self.start.index(grid), grid.steps)
        count = len(pixels[rows])
        stored = self.run.stored(key)
        if stored is not None:
            self.progress.skip(count * (up + grid.steps))
            return stored
        began = time.perf_counter()
        shared: dict[str, Any] = {
            "grid": grid,
            "condition": self.settings.label,
            "guidance": self.settings.guidance,
        }
        there = invert(
            self.model,
            pixels[rows],
            method=method,
            start=self.start,
            seed=self.settings.seed,
            items=[item.id for item in self.run.manifest.items[rows]],
            keep=Keep(self.settings.keep),
            on_step=self.progress.walk(count * up),
            **shared,
        )
        self._refuse_divergence(there.finite, rows)
        if self.settings.keep != "latent":
            there.save(self.run.path / "trajectories" / f"{key}.safetensors")
        back = sample(
            self.model,
            there.latent,
            method=method.sampler,
            stored=there.stored,
            on_step=self.progress.walk(count * grid.steps),
            **shared,
        )
        tensors = {"latent": there.latent.cpu(), "reconstruction": back.images.cpu()}
        tensors["start"] = torch.tensor(there.starts or (there.start,) * len(there))
        tensors["nfe_up"] = torch.tensor(there.costs or (there.nfe,) * len(there))
        if there.residuals:
            tensors["residual"] = torch.stack(list(there.residuals.values())).amax(0).cpu()
        tensors |= {f"stored.{name}": tensor.cpu() for name, tensor in there.stored.tensors().items()}
        return self.run.store(key, Part(tensors, there.nfe + back.nfe, time.perf_counter() - began, there.nfe))

    def _refuse_divergence(self, finite: Tensor, rows: slice) -> None:
        items = self.run.manifest.items[rows]
        bad = [item.name for item, fine in zip(items, finite.tolist(), strict=True) if not fine]
        if bad:
            raise DivergenceError(
                f"the inversion of {', '.join(bad)} left the finite numbers; try guidance 1, float32, or a forward start"
            )


def invert_photos(
    model: Model, photos: Sequence[Photo], settings: InvertSettings, out: Path, on_step: OnStep | None = None
) -> tuple[Run, dict[str, Diagnosis]]:
    """`invert_run`, diagnosed and drawn; the complete run and a diagnosis per start."""
    run = invert_run(model, photos, settings, out, on_step)
    tensors = run.tensors()
    diagnoses = diagnose_tensors(tensors, settings.forward)
    if not (run.path / "report.html").is_file():
        write_pictures(run, tensors)
        run.add({"diagnoses": {name: found.to_dict() for name, found in diagnoses.items()}})
        write_report(run, tensors, diagnoses)
    return run, diagnoses


def invert_run(
    model: Model, photos: Sequence[Photo], settings: InvertSettings, out: Path, on_step: OnStep | None = None
) -> Run:
    """Invert `photos` from each start and sample back; the complete run.

    Raises:
        RunError: `out` holds something else, or cannot be written.
        DivergenceError: A latent is not finite; batches finished before are kept.
    """
    run = Run.open(out, "invert", settings.model_dump(mode="json"), [item_of(photo) for photo in photos], settings.origin)
    if run.complete:
        return run
    pixels = torch.stack([photo.pixels for photo in photos])
    starts = {text: parse_start(text) for text in settings.forward}
    grid, method = settings.grid(model), settings.inversion()
    moves = sum(method.moves(grid, start.index(grid), grid.steps) + grid.steps for start in starts.values())
    progress = Progress(on_step, moves * len(photos))
    tensors: dict[str, Tensor] = {"images": pixels}
    costs: dict[str, dict[str, float]] = {}
    for text, start in starts.items():
        inversion = _Inversion(model, settings, start, run, slug(text), progress)
        parts = [inversion.batch(pixels, rows) for rows in batches(len(photos), settings.batch_size)]
        for name in parts[0].tensors:
            tensors[f"{name}.{text}"] = torch.cat([part.tensors[name] for part in parts])
        costs[text] = cost_of(parts)
    if model.codec.scale > 1:
        tensors["codec"] = torch.cat([_coded(model, pixels[rows]) for rows in batches(len(photos), settings.batch_size)])
    run.finish(tensors, {"cost": costs})
    return run


@torch.no_grad()
def _coded(model: Model, images: Tensor) -> Tensor:
    """What the codec alone makes of images: no reconstruction is closer."""
    return model.codec.decode(model.codec.encode(images.to(model.device))).cpu()


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
    command = "sample" if latents is None else "reconstruct"
    run = Run.open(out, command, settings.model_dump(mode="json"), items, settings.origin)
    if run.complete:
        return run
    noise = draw_noise(model, settings.count, seed=settings.seed) if latents is None else latents
    progress = Progress(on_step, settings.count * settings.steps)

    def walk_down(rows: slice, on_step: OnStep) -> Samples:
        return sample(
            model,
            noise[rows],
            grid=settings.grid(model),
            method=settings.sampler(),
            condition=settings.label,
            guidance=settings.guidance,
            negative=settings.negative,
            stored=stored.take(rows),
            on_step=on_step,
        )

    parts = [
        sampled_batch(run, walk_down, rows, settings.steps, progress) for rows in batches(len(noise), settings.batch_size)
    ]
    samples = torch.cat([part.tensors["samples"] for part in parts])
    for index, (item, image) in enumerate(zip(items, samples, strict=True)):
        run.write(f"samples/{index:04d}-{slug(Path(item.name).stem)}.png", png_bytes(image))
    run.write("overview.png", plotting.sheet(samples[:64], None if latents is None else names[:64]))
    run.finish({"samples": samples, "latent": noise.cpu()}, {"cost": {"sample": cost_of(parts)}})
    return run


def sampled_batch(
    run: Run, walk_down: Callable[[slice, OnStep], Samples], rows: slice, steps: int, progress: Progress
) -> Part:
    """A batch sampled by `walk_down`: read back if it was finished before, stored otherwise."""
    key, moves = f"{rows.start:06d}", (rows.stop - rows.start) * steps
    stored = run.stored(key)
    if stored is not None:
        progress.skip(moves)
        return stored
    began = time.perf_counter()
    back = walk_down(rows, progress.walk(moves))
    if not bool(torch.isfinite(back.images).all()):
        raise DivergenceError("a sample left the finite numbers; try a smaller guidance, more steps, or float32")
    return run.store(key, Part({"samples": back.images.cpu()}, back.nfe, time.perf_counter() - began))


def item_of(photo: Photo) -> Item:
    """A photograph as a manifest names it."""
    width, height = photo.original
    return Item(name=photo.name, id=photo.id, width=width, height=height, notes=list(photo.notes))


def cost_of(parts: Sequence[Part]) -> dict[str, float]:
    """Network evaluations of the item that took most, and seconds in all."""
    spent = {"nfe": max(part.nfe for part in parts), "nfe_up": max(part.nfe_up for part in parts)}
    return {**spent, "seconds": round(sum(part.seconds for part in parts), 3)}
