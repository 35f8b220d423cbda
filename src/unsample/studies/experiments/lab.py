"""Where experiments get their images, latents and reconstructions: made once, kept under what they are, and shared.

Everything is a resumable run directory whose name follows from its settings, so that an experiment which is interrupted goes
on, and one that needs what another made reads it back. Nothing is drawn from global state: the lab's seed decides.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.batching import batches
from ...core.model import Model
from ...diagnostics import Diagnosis, diagnose
from ...errors import ArgumentError
from ...pictures.read import Photo, demo_photos, read_photos
from ...runs import invert as jobs
from ...runs.directory import Item, Part, Run, slug
from ...runs.progress import progress_bar
from ...runs.settings import SampleSettings
from ..compare import Candidate, run_candidate

__all__ = ["Inverted", "Lab", "Pictures"]

GENERATED, PHOTOGRAPHS = "generated", "photographs"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images of an experiment.

    Attributes:
        name: `generated` or `photographs`.
        photos: The images, with ids on which the noise of a forward start depends.
        noise: What they were sampled from, x_T of shape (count, *state); None for photographs.
    """

    name: str
    photos: tuple[Photo, ...] = field(repr=False)
    noise: Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def pixels(self) -> Tensor:
        """As they are inverted, shape (count, channels, height, width); samples may leave [-1, 1]."""
        return torch.stack([photo.pixels for photo in self.photos])

    @property
    def shown(self) -> Tensor:
        """As a viewer sees them, in [-1, 1]: what plain areas and reconstructions are judged on."""
        return self.pixels.clamp(-1, 1)

    @property
    def key(self) -> str:
        """A name for exactly these images."""
        return hashlib.sha256("".join(photo.id for photo in self.photos).encode()).hexdigest()[:8]


@dataclass(frozen=True, eq=False)
class Inverted:
    """Latents, what DDIM samples back from them (in [-1, 1]), and evaluations per image on the way up."""

    latent: Tensor
    reconstruction: Tensor
    nfe_up: int


@dataclass(frozen=True)
class Lab:
    """A model, images, and a folder that keeps what is expensive.

    Attributes:
        model: With a digest, under which its results are kept.
        cache: The folder.
        data: Photographs: files, folders, globs and parquet files; without, the eight that come with unsample.
        seed: Of the noise that images are sampled from, and of forward starts.
        batch_size: Images per network call.
        checkpoints: A folder of checkpoints of a training run, for the experiment on training.
    """

    model: Model
    cache: Path
    data: tuple[str, ...] = ()
    seed: int = 0
    batch_size: int = 64
    checkpoints: Path | None = None

    def __post_init__(self) -> None:
        if not self.model.digest:
            raise ArgumentError("experiments are kept under the model's digest, and this model has none: give it one")

    def generated(self, count: int, steps: int) -> Pictures:
        """Images sampled by DDIM from true noise, unconditionally; item i is the same for any count."""
        settings = SampleSettings.of(self.model, count=count, steps=steps, seed=self.seed, batch_size=self.batch_size)
        with progress_bar(f"sampling {count} images") as on_step:
            run = jobs.sample_images(self.model, settings, self._place("sample", settings.model_dump(mode="json")), on_step)
        tensors = run.tensors()
        photos = [Photo.of(image, f"{i:04d}") for i, image in enumerate(tensors["samples"])]
        return Pictures(GENERATED, tuple(photos), tensors["latent"])

    def photographs(self, count: int) -> Pictures:
        """At most `count` photographs: those given, or those that come with unsample."""
        return Pictures(PHOTOGRAPHS, tuple(read_photos(self.data or demo_photos(), self.model.image_size, count)))

    def sets(self, count: int, steps: int) -> list[Pictures]:
        """Generated images, and photographs if any were given."""
        return [self.generated(count, steps), *([self.photographs(count)] if self.data else [])]

    def inverted(self, pictures: Pictures, method: str = "ddim", forward: str = "0", *, steps: int) -> Inverted:
        """Latents of the pictures by a method from a start, both as on the command line, and the way back."""
        candidate = Candidate(method, forward, steps, f"{pictures.name}: {method}, forward {forward}, N = {steps}")
        run = run_candidate(self.model, pictures.photos, candidate, self.cache, batch_size=self.batch_size, seed=self.seed)
        tensors, cost = run.tensors(), run.manifest.results["cost"]
        assert isinstance(cost, dict)
        spent: Any = cost[forward]
        return Inverted(tensors[f"latent.{forward}"], tensors[f"reconstruction.{forward}"].clamp(-1, 1), spent["nfe_up"])

    def streamed(
        self, what: str, pictures: Pictures, compute: Callable[[slice], Mapping[str, Tensor]], **settings: Any
    ) -> dict[str, Tensor]:
        """What `compute` gives for each batch of rows, joined: one row per item, so keep sums, not trajectories.

        `what` and `settings` must say all that the result depends on besides the model, the pictures and the seed.
        """
        known = {
            "model": self.model.name,
            "digest": self.model.digest,
            "seed": self.seed,
            "batch": self.batch_size,
            **settings,
        }
        items = [Item(name=p.name, id=p.id, width=p.original[0], height=p.original[1]) for p in pictures.photos]
        run = Run.open(self._place(what, {**known, "pictures": pictures.key}), what, known, items)
        if run.complete:
            return run.tensors()
        parts = []
        with progress_bar(f"{pictures.name}: {what}") as on_step:
            for rows in batches(len(pictures), self.batch_size):
                parts.append(_part(run, rows, compute))
                on_step(min(rows.stop, len(pictures)), len(pictures))
        run.finish({name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors}, {})
        return run.tensors()

    def encoded(self, pictures: Pictures) -> Tensor:
        """The images as clean states of the model, x_0."""
        return self.model.codec.encode(pictures.pixels.to(self.model.device))

    def diagnosed(self, pictures: Pictures, inverted: Inverted) -> Diagnosis:
        """All diagnostics of latents and reconstructions."""
        return diagnose(inverted.latent, images=pictures.shown, reconstruction=inverted.reconstruction)

    def _place(self, what: str, settings: Mapping[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        return self.cache / f"{slug(self.model.name)}-{self.model.digest}" / f"{slug(what)}-{key}"


def _part(run: Run, rows: slice, compute: Callable[[slice], Mapping[str, Tensor]]) -> Part:
    """A batch: read back if it was finished before, made and stored otherwise."""
    key = f"{rows.start:06d}"
    stored = run.stored(key)
    if stored is not None:
        return stored
    began = time.perf_counter()
    with torch.no_grad():
        tensors = {name: tensor.cpu() for name, tensor in compute(rows).items()}
    return run.store(key, Part(tensors, 0, time.perf_counter() - began))
