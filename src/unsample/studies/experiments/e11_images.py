"""What E11 measures: images on paths between latents, their Frechet distances and diversity, each computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...diagnostics import Diagnosis, Interval, Null, diagnose, frechet, frechet_null, pairwise_distance
from ...models.classifier import Classifier, load_classifier
from ...uses.paths import along
from ...uses.sample import sample
from .lab import GENERATED, PHOTOGRAPHS, Lab, Pictures
from .paired import Array, bootstrapped, jackknifed, left_out

NOISE, USUAL = "noise", "DDIM latents"


@dataclass(frozen=True, eq=False)
class PathImages:
    """Spherical paths between images 2i and 2i + 1 that were sampled for it, and what is measured on them.

    Attributes:
        lab: Where images and latents come from.
        pairs, steps, forward, points: As of `Interpolation`.
    """

    lab: Lab
    pairs: int
    steps: int
    forward: int
    points: int

    @cached_property
    def judge(self) -> Classifier:
        """Whose features are compared."""
        return load_classifier(device=self.lab.model.device)

    @cached_property
    def _every(self) -> Pictures:
        return self.lab.generated(4 * self.pairs, self.steps)

    @cached_property
    def ends(self) -> Pictures:
        """The images at the ends of the paths: the first half of those sampled."""
        count = 2 * self.pairs
        return Pictures(GENERATED, self._every.photos[:count], self._every.source[:count])

    @cached_property
    def references(self) -> dict[str, Tensor]:
        """Features of images that are no end: the other half of those sampled, and photographs if there are any."""
        references = {GENERATED: self._every.shown[len(self.ends) :]}
        if self.lab.data:
            references[PHOTOGRAPHS] = self.lab.photographs(len(self.ends)).pixels
        enough = {name: images for name, images in references.items() if len(images) >= len(self.ends)}
        return {name: self.judge.features(images).double().cpu() for name, images in enough.items()}

    @cached_property
    def nulls(self) -> dict[str, Null]:
        """What the distance is between two sets of the reference."""
        return {name: frechet_null(x, self.pairs) for name, x in self.references.items()}

    @cached_property
    def _known(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Kind -> a latent per image, and what is sampled from it."""
        steps, k = self.steps, self.forward
        settings = {
            USUAL: ("ddim", "0"),
            f"forward start, k = {k}": ("ddim", str(k)),
            f"look-ahead, k = {k}": ("look-ahead", str(k)),
        }
        made = {name: self.lab.inverted(self.ends, *how, steps=steps) for name, how in settings.items()}
        return {NOISE: (self.ends.source, self.ends.shown), **{n: (x.latent, x.reconstruction) for n, x in made.items()}}

    @cached_property
    def images(self) -> dict[str, Tensor]:
        """Kind -> images on the paths between pairs, [points, pairs, ...], in [-1, 1]."""
        return {name: self._sampled(name, self.path(name), (x[0::2], x[1::2])) for name, (_, x) in self._known.items()}

    def path(self, name: str) -> Tensor:
        """[points, pairs, ...]: latents on the paths of one kind."""
        latent, _ = self._known[name]
        return _paths(latent[0::2], latent[1::2], self.points)

    @cached_property
    def own(self) -> dict[str, Tensor]:
        """Kind of latent -> images on the path to it from the noise of its own image, [points, pairs, ...]."""
        noise, image = (x[0::2] for x in self._known[NOISE])
        images_of = {}
        for name in list(self._known)[1:3]:
            latent, back = (x[0::2] for x in self._known[name])
            images_of[name] = self._sampled(f"own {name}", _paths(noise, latent, self.points), (image, back))
        return images_of

    def _sampled(self, kind: str, path: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
        """Images of the points of paths; those of the ends are known."""
        grid, firsts = self.lab.model.grid(self.steps), Pictures(GENERATED, self.ends.photos[0::2])

        def compute(rows: slice) -> dict[str, Tensor]:
            return {"images": torch.stack([sample(self.lab.model, x, grid=grid).images for x in path[1:-1, rows]], dim=1)}

        known = {"steps": self.steps, "points": self.points, "forward": self.forward, "kind": kind}
        between = self.lab.streamed("ways between latents", firsts, compute, **known)["images"].transpose(0, 1).clamp(-1, 1)
        return torch.cat([ends[0][None], between, ends[1][None]])

    @cached_property
    def groups(self) -> dict[str, dict[str, list[Array]]]:
        """Reference -> kind -> distance at each point: of all pairs, and without each group of them."""
        features = {name: [self.judge.features(x).double().cpu() for x in images] for name, images in self.images.items()}
        return {
            reference: {name: [_distances(x, real, self.judge.name) for x in points] for name, points in features.items()}
            for reference, real in self.references.items()
        }

    @cached_property
    def frechet(self) -> dict[str, dict[str, list[Interval]]]:
        """Reference -> kind -> distance at each point."""
        return {
            reference: {name: [jackknifed([point]) for point in points] for name, points in kinds.items()}
            for reference, kinds in self.groups.items()
        }

    def rise(self, reference: str, name: str) -> Interval:
        """By what share the distance in the middle is above the mean of the ends."""
        return jackknifed(_start_middle_end(self.groups[reference][name]), _rise)

    def higher(self, reference: str, name: str) -> Interval:
        """By how much more it rises than that of noise."""
        places = [point for kind in (name, NOISE) for point in _start_middle_end(self.groups[reference][kind])]
        return jackknifed(places, lambda *x: _rise(*x[:3]) - _rise(*x[3:]))

    @cached_property
    def diversity(self) -> dict[str, list[Interval]]:
        """Kind -> mean distance of two images at each point."""
        return {name: [pairwise_distance(x).interval() for x in images] for name, images in self.images.items()}

    def loss(self, name: str) -> Interval:
        """The change of diversity from the ends to the middle, as a share."""
        return bootstrapped([pairwise_distance(x) for x in _start_middle_end(self.images[name])], _rise)

    @cached_property
    def whiteness(self) -> dict[str, dict[str, Diagnosis]]:
        """Kind -> place -> diagnosis of the latents there."""
        places = {"end": 0, "middle": self.points // 2}
        return {name: {at: diagnose(self.path(name)[i]) for at, i in places.items()} for name in self._known}

    def apart(self, name: str) -> list[Tensor]:
        """Root mean square distance of the images on the path to the own latent from the sampled image, by point."""
        image = self.ends.shown[0::2]
        return [(x - image).double().square().flatten(1).mean(1).sqrt() for x in self.own[name]]


def _paths(a: Tensor, b: Tensor, points: int) -> Tensor:
    """[points, pairs, ...]: each pair along its own arc."""
    return torch.stack([along(torch.stack(ends), points) for ends in zip(a, b, strict=True)], dim=1)


def _distances(x: Tensor, real: Tensor, name: str) -> Array:
    """Frechet distance of all pairs, then without each of ten groups, of both sides."""
    return left_out(lambda ours, theirs: frechet(ours, theirs, features=name).value, x, real)


def _start_middle_end(points: Any) -> list[Any]:
    return [points[i] for i in (0, len(points) // 2, -1)]


def _rise(first: Array, middle: Array, last: Array) -> Array:
    return np.asarray(2 * middle / (first + last) - 1)
