"""Photographs to a run directory of what lies between them: inverted in runs of their own, then sampled frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import pictures as plotting
from ..core.batching import OnStep, batches
from ..core.corrections import Corrected
from ..core.model import Model
from ..errors import ArgumentError
from ..pictures.read import Photo, png_bytes
from ..uses.interpolate import Frames, frames_between
from ..uses.sample import Samples, sample
from .directory import Run
from .invert import Progress, cost_of, invert_run, item_of, sampled_batch
from .progress import progress_bar
from .settings import InvertSettings

__all__ = ["Way", "draw"]


@dataclass(frozen=True, eq=False)
class Way:
    """Photographs and what lies between them; the settings of the inversion of each."""

    model: Model
    photos: Sequence[Photo]
    settings: Sequence[InvertSettings]
    spread: int | tuple[int, int]
    path: str

    @property
    def asked(self) -> dict[str, Any]:
        """All that the result depends on."""
        own = {
            "labels": [one.label for one in self.settings],
            "frames": self.spread if isinstance(self.spread, int) else list(self.spread),
            "path": self.path,
        }
        return {**self.settings[0].model_dump(mode="json"), **own, "label": None}

    def check(self) -> None:
        """Refuse what has no way before any work is done: zeros stand in for the latents."""
        method = self.settings[0].inversion()
        if isinstance(method, Corrected) or method.reversible:
            raise ArgumentError(
                f"--method: {self.settings[0].method} finds its way back by what it stores of each picture, and between "
                "pictures there is nothing stored; choose another of `unsample methods`, such as auto"
            )
        self._frames(torch.zeros(len(self.photos), 1))

    def _frames(self, keys: Tensor) -> Frames:
        conditions = [one.label for one in self.settings]
        return frames_between(self.model, keys, frames=self.spread, path=self.path, condition=conditions)

    def walked(self, out: Path) -> Run:
        """The complete run: the pictures inverted in runs of their own, and every frame sampled."""
        settings, items = self.settings[0], [item_of(photo) for photo in self.photos]
        run = Run.open(out, "interpolate", self.asked, items, settings.origin)
        if run.complete:
            return run
        made = self._frames(self._inverted(out))
        shared: dict[str, Any] = {"grid": settings.grid(self.model), "guidance": settings.guidance}
        shared |= {"method": settings.inversion().sampler}
        moves = shared["grid"].steps

        def walk_down(rows: slice, on_step: OnStep) -> Samples:
            told: Any = made.conditions[rows] if isinstance(made.conditions, list) else made.conditions
            return sample(made.model, made.latents[rows], condition=told, on_step=on_step, **shared)

        with progress_bar(f"sampling {len(made.latents)} frames") as on_step:
            progress = Progress(on_step, moves * len(made.latents))
            cut = batches(len(made.latents), settings.batch_size)
            parts = [sampled_batch(run, walk_down, rows, moves, progress) for rows in cut]
        images = torch.cat([part.tensors["samples"] for part in parts])
        tensors = {"samples": images, "latent": made.latents, "keys": torch.tensor(made.keys)}
        run.finish(tensors, {"cost": {"sample": cost_of(parts)}})
        return run

    def _inverted(self, out: Path) -> Tensor:
        """The latents of the pictures, those of one label in one run of `invert`."""
        latents: dict[int, Tensor] = {}
        for number, label in enumerate(dict.fromkeys(one.label for one in self.settings)):
            rows = [i for i, one in enumerate(self.settings) if one.label == label]
            settings, photos = self.settings[rows[0]], [self.photos[i] for i in rows]
            with progress_bar(f"inverting {len(rows)} pictures") as on_step:
                run = invert_run(self.model, photos, settings, out / "inverted" / f"{number}", on_step)
            latents |= dict(zip(rows, run.tensors()[f"latent.{settings.forward[0]}"], strict=True))
        return torch.stack([latents[i] for i in range(len(self.photos))])


def draw(run: Run, way: Way, kind: str | None) -> None:
    """`strip.png`, `frames/` and the animation of a complete run."""
    tensors = run.tensors()
    images = tensors["samples"]
    labels = {int(frame): item.name for frame, item in zip(tensors["keys"], run.manifest.items, strict=True)}
    columns = None if isinstance(way.spread, int) else way.spread[1]
    run.write("strip.png", plotting.strip(images, labels, columns=columns))
    for frame, image in enumerate(images):
        run.write(f"frames/{frame:04d}.png", png_bytes(image))
    if kind is not None:
        run.write(f"frames.{kind}", plotting.animation(images, kind))
