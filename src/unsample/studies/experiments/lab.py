"""Where experiments E1 to E19 get their images, latents and reconstructions: made once, kept on disk, and shared.

Everything is a resumable run directory whose name follows from its settings, so that an experiment which is interrupted goes
on, and one that needs what another made reads it back. Nothing is drawn from global state: the lab's seed decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._tensors import brief
from ...core.model import Condition, Model
from ...core.trajectory import Trajectory
from ...diagnostics import Diagnosis, diagnose
from ...errors import ArgumentError, counted
from ...pictures.find import distinct_names, find_photos
from ...pictures.parquet import column_names, column_of
from ...pictures.read import Photo, Rejected, demo_photos, read_all, row_name
from ...runs.directory import Run
from ...runs.manifest import identity
from ...runs.names import slug
from ...runs.parts import item_of, joined
from ...runs.progress import progress_bar
from ...runs.sample import sample_images
from ...runs.settings import SampleSettings
from ...uses.invert import invert
from ...uses.sample import sample
from ..compare import Candidate, run_candidate

GENERATED, PHOTOGRAPHS = "generated", "photographs"

DDIM_LATENT = "DDIM latent"
"""What tables call a latent by DDIM from the image itself."""

LABEL = "label"
"""The column of a parquet file that holds the class of each photograph."""


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
    def source(self) -> Tensor:
        """The noise they were sampled from, of images that are known to be generated."""
        assert self.noise is not None
        return self.noise

    @property
    def ids(self) -> list[str]:
        """On which the noise of a forward start depends."""
        return [photo.id for photo in self.photos]

    @property
    def key(self) -> str:
        """A name for exactly these images."""
        return hashlib.sha256("".join(self.ids).encode()).hexdigest()[:8]


@brief
@dataclass(frozen=True, eq=False)
class RoundTrip:
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
        strict: Whether a photograph that cannot be read stops the experiment.
        read: The names of the photographs that were read so far.
        rejected: Those that were left out so far, by name.
    """

    model: Model
    cache: Path
    data: tuple[str, ...] = ()
    seed: int = 0
    batch_size: int = 64
    checkpoints: Path | None = None
    strict: bool = False
    read: set[str] = field(default_factory=set, repr=False, compare=False)
    rejected: dict[str, Rejected] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.model.digest:
            raise ArgumentError("experiments are kept under the model's digest, and this model has none: give it one")

    def generated(self, count: int, steps: int) -> Pictures:
        """Images sampled by DDIM from true noise, unconditionally; item i is the same for any count."""
        settings = SampleSettings.of(self.model, count=count, steps=steps, seed=self.seed, batch_size=self.batch_size)
        place = self._place("sample", identity(settings.model_dump(mode="json")))
        with progress_bar(f"sampling {counted(count, 'image')}") as on_step:
            run = sample_images(self.model, settings, place, on_step)
        tensors = run.tensors()
        photos = [Photo.of(image, f"{i:04d}") for i, image in enumerate(tensors["samples"])]
        return Pictures(GENERATED, tuple(photos), tensors["latent"])

    def photographs(self, count: int) -> Pictures:
        """At most `count` photographs: those given, or those that come with unsample; what cannot be read is left out."""
        reading = read_all(self.data or demo_photos(), self.model.image_size, count, strict=self.strict)
        self.read.update(photo.name for photo in reading.photos)
        self.rejected.update((one.name, one) for one in reading.rejected)
        return Pictures(PHOTOGRAPHS, tuple(reading.photos))

    def sets(self, count: int, steps: int) -> list[Pictures]:
        """Generated images, and photographs if any were given."""
        return [self.generated(count, steps), *([self.photographs(count)] if self.data else [])]

    def inverted(self, pictures: Pictures, method: str = "ddim", forward: str = "0", *, steps: int) -> RoundTrip:
        """Latents of the pictures by a method from a start, both as on the command line, and the way back."""
        candidate = Candidate(method, forward, steps, f"{pictures.name}: {method}, forward {forward}, N = {steps}")
        run = run_candidate(self.model, pictures.photos, candidate, self.cache, batch_size=self.batch_size, seed=self.seed)
        tensors, cost = run.tensors(), run.manifest.results["cost"]
        assert isinstance(cost, dict)
        spent: Any = cost[forward]
        return RoundTrip(tensors[f"latent.{forward}"], tensors[f"reconstruction.{forward}"].clamp(-1, 1), spent["nfe_up"])

    def trajectory(self, pictures: Pictures, rows: slice, **options: Any) -> Trajectory:
        """That of an inversion of some of the pictures, with `invert`'s options; made anew by every call."""
        return invert(self.model, pictures.pixels[rows], seed=self.seed, items=pictures.ids[rows], **options)

    def latents(
        self, pictures: Pictures, steps: int, forward: int, usual: str = DDIM_LATENT, repaired: str = ""
    ) -> dict[str, Tensor]:
        """Latents by DDIM from the image and from a forward start of `forward` steps, under two names."""
        forwards = {usual: "0", repaired or forward_title(forward): str(forward)}
        return {name: self.inverted(pictures, forward=k, steps=steps).latent for name, k in forwards.items()}

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
            **settings,
        }
        items = [item_of(photo) for photo in pictures.photos]
        place = self._place(what, {**known, "pictures": pictures.key})
        run = Run.open(place, what, {**known, "batch_size": self.batch_size}, items)
        if run.complete:
            return run.tensors()
        parts = []
        with progress_bar(f"{pictures.name}: {what}") as on_step:
            for key, rows in run.tiles("", len(pictures), self.batch_size):
                with torch.no_grad():
                    parts.append(run.part(key, partial(compute, rows), rows.stop - rows.start))
                on_step(min(rows.stop, len(pictures)), len(pictures))
        run.finish(joined(parts), {})
        return run.tensors()

    def encoded(self, pictures: Pictures) -> Tensor:
        """The images as clean states of the model, x_0."""
        return self.model.codec.encode(pictures.pixels.to(self.model.device))

    def diagnosed(self, pictures: Pictures, inverted: RoundTrip) -> Diagnosis:
        """All diagnostics of latents and reconstructions."""
        return diagnose(inverted.latent, images=pictures.shown, reconstruction=inverted.reconstruction)

    def _place(self, what: str, settings: Mapping[str, Any]) -> Path:
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        return self.cache / f"{slug(self.model.name)}-{self.model.digest}" / f"{slug(what)}-{key}"


def forward_title(steps: int) -> str:
    """What tables call a latent by DDIM from a forward start.

    >>> forward_title(2)
    'forward k = 2'
    """
    return f"forward k = {steps}"


def labelled(lab: Lab, count: int, steps: int) -> tuple[Pictures, list[Condition]]:
    """The lab's photographs with the classes that their parquet files give; images sampled under classes without those.

    Args:
        lab: With a model that knows the classes.
        count: At most so many photographs, or so many sampled images, their classes spread over the model's.
        steps: Of sampling.

    Raises:
        ArgumentError: A model without classes, or labels that are not among them.
    """
    conditioner = lab.model.conditioner
    if conditioner is None:
        raise ArgumentError(f"model {lab.model.name!r} takes no condition, which guidance needs: choose one with classes")
    if _has_labels(lab.data):
        photographs = lab.photographs(count)
        labels = _labels(lab.data, [photo.name for photo in photographs.photos])
        conditioner(labels, lab.model.device)  # refuses what is no class before any work
        return photographs, labels
    names: Sequence[str] = getattr(conditioner, "names", ())
    if not names:
        raise ArgumentError(f"model {lab.model.name!r} has no list of classes to sample under: give photographs with labels")
    return _sampled(lab, count, steps, [index * len(names) // count % len(names) for index in range(count)])


def _sampled(lab: Lab, count: int, steps: int, labels: list[Condition]) -> tuple[Pictures, list[Condition]]:
    """By DDIM without guidance, from the noise of the lab's generated images."""
    pictures = lab.generated(count, steps)
    noise = pictures.source

    def compute(rows: slice) -> dict[str, Tensor]:
        return {"images": sample(lab.model, noise[rows], grid=lab.model.grid(steps), condition=labels[rows]).images}

    images = lab.streamed("samples under classes", pictures, compute, steps=steps, labels=labels)["images"]
    photos = [Photo.of(image, photo.name) for image, photo in zip(images, pictures.photos, strict=True)]
    return Pictures(GENERATED, tuple(photos), noise), labels


def _has_labels(data: Sequence[str]) -> bool:
    """Whether all photographs come from parquet files that have them."""
    paths = find_photos(data)
    return bool(paths) and all(path.suffix == ".parquet" and LABEL in column_names(path) for path in paths)


def _labels(data: Sequence[str], names: Sequence[str]) -> list[Condition]:
    """Those of the photographs of these names, which come in the order of their rows."""
    paths, labels, wanted = find_photos(data), list[Condition](), iter(names)
    name = next(wanted, None)
    for path, called in zip(paths, distinct_names(paths), strict=True):
        for index, label in enumerate(column_of(path, LABEL)):
            if name is None:
                return labels
            if row_name(called, index) == name:
                labels.append(label)
                name = next(wanted, None)
    return labels
