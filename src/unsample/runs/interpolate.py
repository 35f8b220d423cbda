"""Photographs to a run directory of the frames between them: inverted in runs of their own, then sampled frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import pictures as plotting
from ..core.corrections import Corrected
from ..core.model import Model
from ..errors import ArgumentError, counted
from ..pictures.read import Photo, png_bytes
from ..uses.interpolate import Frames, frames_between
from .directory import Run
from .invert import invert_run
from .manifest import identity
from .parts import cost_of, item_of, joined, mean_psnr
from .progress import progress_bar
from .sample import sampled_parts
from .settings import InvertSettings
from .work import Work


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A run of `interpolate`.

    Attributes:
        model: What inverts and samples.
        photos: The pictures.
        settings: How each is inverted.
        frames: How many there are from the first picture to the last; or rows and columns of a grid.
        path: From latent to latent.
    """

    model: Model
    photos: Sequence[Photo]
    settings: Sequence[InvertSettings]
    frames: int | tuple[int, int]
    path: str

    @property
    def own(self) -> dict[str, Any]:
        """Settings besides those of an inversion; labels are of each picture."""
        frames = self.frames if isinstance(self.frames, int) else list(self.frames)
        return {"labels": self._conditions, "frames": frames, "path": self.path, "label": None}

    @property
    def key(self) -> str:
        """All that the result depends on besides the pictures."""
        return str(identity({**self.settings[0].model_dump(mode="json"), **self.own}))

    @property
    def _conditions(self) -> list[str | None]:
        return [one.label for one in self.settings]

    def check(self) -> None:
        """Refuse what has no frames before any work is done: zeros stand in for the latents."""
        method = self.settings[0].inversion
        if isinstance(method, Corrected) or method.reversible:
            raise ArgumentError(
                f"--method: {self.settings[0].method} finds its way back by what it stores of each picture, and between "
                "pictures there is nothing stored; choose another of `unsample methods`, such as auto"
            )
        self._between(torch.zeros(len(self.photos), 1, device="cpu"))

    def _between(self, keys: Tensor) -> Frames:
        return frames_between(self.model, keys, frames=self.frames, path=self.path, condition=self._conditions)

    def run(self, out: Path) -> Run:
        """The complete run: the pictures inverted in runs of their own, and every frame sampled."""
        settings = self.settings[0]
        run = settings.open(out, "interpolate", [item_of(photo) for photo in self.photos], **self.own)
        if run.complete:
            return run
        latents, up = self._inverted(out)
        made = self._between(latents)
        with progress_bar(f"sampling {counted(len(made.latents), 'frame')}") as on_step:
            parts = sampled_parts(run, made.model, settings, made.latents, made.conditions, on_step)
        tensors = {"samples": joined(parts)["samples"], "latent": made.latents, "keys": torch.tensor(made.keys, device="cpu")}
        places = Work.of_photos(self.model, settings, self.photos).places
        cost = cost_of(parts)
        pictures, back = torch.stack([photo.pixels for photo in self.photos]), tensors["samples"][tensors["keys"]]
        results = {"starts": places, "nfe": {"up": up, "frame": cost["nfe"]}, "psnr": mean_psnr(pictures, back)}
        run.finish(tensors, {"cost": {"sample": cost}, **results})
        return run

    def _inverted(self, out: Path) -> tuple[Tensor, float]:
        """The latents of the pictures, those of one label in one run of `invert`, and the evaluations of the costliest."""
        latents, spent = dict[int, Tensor](), 0.0
        for number, label in enumerate(dict.fromkeys(self._conditions)):
            rows = [i for i, one in enumerate(self._conditions) if one == label]
            settings, photos = self.settings[rows[0]], [self.photos[i] for i in rows]
            with progress_bar(f"inverting {counted(len(rows), 'picture')}") as on_step:
                run = invert_run(self.model, photos, settings, out / "inverted" / f"{number}", on_step)
            latents |= dict(zip(rows, run.tensors()[f"latent.{settings.forward[0]}"], strict=True))
            spent = max(spent, run.manifest.costs[settings.forward[0]]["nfe_up"])
        return torch.stack([latents[i] for i in range(len(self.photos))]), spent

    def draw(self, run: Run, kind: str | None) -> None:
        """`strip.png`, `frames/` and the animation of the complete run, whichever kind is wanted now."""
        run.drawn = run.drawn and (kind is None or f"frames.{kind}" in run.files)
        run.draw(lambda: self._draw(run, kind))

    def _draw(self, run: Run, kind: str | None) -> None:
        tensors = run.tensors()
        images = tensors["samples"]
        labels = {int(frame): item.name for frame, item in zip(tensors["keys"], run.manifest.items, strict=True)}
        columns = None if isinstance(self.frames, int) else self.frames[1]
        run.write("strip.png", plotting.strip(images, labels, columns=columns))
        for frame, image in enumerate(images):
            run.write(f"frames/{frame:04d}.png", png_bytes(image))
        if kind is not None:
            run.write(f"frames.{kind}", plotting.animation(images, kind))
