"""E12: another class for the latents of images (Figure 7 of the paper).

Images are sampled under classes, so that the noise that each came from is known. From that noise, from latents of the image by
DDIM, and from latents of forward starts, each is sampled under another class. An edit that leaves the image as it is has
distance 0 to it, one that obeys is taken for the new class: noise says how much of either is to be had. An inversion that
loses the image is far from it, too, so that the change is also measured from what the same latent gives under its own class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from ... import pictures as plotting
from ...core.model import Condition
from ...diagnostics import bootstrap
from ...errors import ArgumentError
from ...methods.registry import parse_method
from ...methods.starts import parse_start
from ...models.classifier import Classifier, load_classifier
from ...runs.html import Table
from ...uses.sample import sample
from .findings import Figure, Findings, Judged, judged
from .lab import Lab, Pictures, labelled
from .paired import gap_closed
from .verdicts import exceeds, percent, signed

NOISE, USUAL, OURS = "noise", "DDIM", "look-ahead"

HALF, SHOWN = 0.5, 8
"""The share of a gap that we call most of it; how many images the figure shows."""


def distance(images: Tensor, results: Tensor) -> Tensor:
    """Root mean square difference per value, in units of a pixel in [-1, 1], of each image; both clamped.

    >>> import torch
    >>> distance(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([0.5000])
    """
    return (results.clamp(-1, 1) - images.clamp(-1, 1)).square().flatten(1).mean(1).sqrt()


@dataclass(frozen=True)
class Editing:
    """Noise and latents, resampled under another class.

    Attributes:
        count: Images.
        steps: N of the grid, up and down.
        guidance: w in eps_u + w (eps_c - eps_u) on the way down to the other class.
        forwards: Forward starts, as on the command line.
    """

    count: int
    steps: int
    guidance: float
    forwards: tuple[str, ...]

    def run(self, lab: Lab) -> Findings:
        """A row and a point for what each edit starts from.

        Raises:
            ArgumentError: A model whose classes are not those of the bundled classifier.
        """
        judge = load_classifier(device=lab.model.device)
        if tuple(getattr(lab.model.conditioner, "names", ())) != judge.classes:
            raise ArgumentError(
                f"the classifier that judges edits knows the classes of tiny-imagenet-32, not those of {lab.model.name!r}"
            )
        pictures, labels = labelled(replace(lab, data=()), self.count, self.steps)
        edits = _Edits(lab, pictures, labels, judge, self.steps, self.guidance, self.forwards)
        return Findings(
            f"{self.count} images sampled under classes spread over the model's, N = {self.steps}, each resampled under the "
            f"class half of them further on, with guidance {self.guidance:g} away from no class. Inverted under their own "
            "class without guidance. Distance is the root mean square difference to the image, in units of a pixel in "
            "[-1, 1]; the change is that to what the same latent gives under its own class; alignment the probability that "
            "the bundled classifier gives the new class. 95 % intervals over images "
            "(bootstrap, paired where ways are compared).",
            {"Edits": _table(edits)},
            (
                Figure("tradeoff", "Distance to the image against alignment with the new class.", _chart(edits)),
                Figure("pictures", "Images, and each resampled under its other class.", plotting.picture_rows(_rows(edits))),
            ),
            judged(pictures.name, *_claims(edits)),
            {
                "ways": {
                    title: {
                        "distance": edits.distances[title].tolist(),
                        "change": edits.changes[title].tolist(),
                        "alignment": edits.alignments[title].tolist(),
                    }
                    for title in edits.images
                },
                "source": {"own": edits.own.tolist(), "other": edits.unedited.tolist()},
            },
        )


@dataclass(frozen=True, eq=False)
class _Edits:
    """Edits of the noise and of latents by each inversion, and what they are judged by."""

    lab: Lab
    pictures: Pictures
    labels: Sequence[Condition]
    judge: Classifier
    steps: int
    guidance: float
    forwards: Sequence[str]

    @cached_property
    def targets(self) -> list[int]:
        """Another class for each image: half of all classes further on."""
        count = len(self.judge.classes)
        return [(int(label or 0) + count // 2) % count for label in self.labels]

    @cached_property
    def found(self) -> dict[str, dict[str, Tensor]]:
        """Title -> `images`, edited, and `back`, sampled under their own class without guidance."""
        inverted = {USUAL: ("ddim", "0")}
        inverted |= {f"DDIM, k = {forward}": ("ddim", forward) for forward in self.forwards}
        inverted |= {f"{OURS}, k = {forward}": (OURS, forward) for forward in self.forwards[:1]}
        return {NOISE: self._edited(None), **{title: self._edited(how) for title, how in inverted.items()}}

    @property
    def images(self) -> dict[str, Tensor]:
        """Title -> edited images."""
        return {title: edits["images"] for title, edits in self.found.items()}

    @cached_property
    def changes(self) -> dict[str, Tensor]:
        """Title -> distance of each edit to what the same latent gives under its own class."""
        return {title: distance(edits["back"], edits["images"]) for title, edits in self.found.items()}

    @cached_property
    def distances(self) -> dict[str, Tensor]:
        """Title -> distance to the source, of each image."""
        return {title: distance(self.pictures.shown, images) for title, images in self.images.items()}

    @cached_property
    def alignments(self) -> dict[str, Tensor]:
        """Title -> probability of the new class, of each image."""
        return {title: self._aligned(images, self.targets) for title, images in self.images.items()}

    @cached_property
    def own(self) -> Tensor:
        """Probability of their own class for the images as they are."""
        return self._aligned(self.pictures.shown, [int(label or 0) for label in self.labels])

    @cached_property
    def unedited(self) -> Tensor:
        """Probability of the new class for the images as they are."""
        return self._aligned(self.pictures.shown, self.targets)

    def _aligned(self, images: Tensor, labels: Sequence[int]) -> Tensor:
        return self.judge.class_alignment(images.float().clamp(-1, 1), labels).cpu()

    def _edited(self, inversion: tuple[str, str] | None) -> dict[str, Tensor]:
        """Resampled from the noise, or from the latents of a method and a start."""
        model, noise = self.lab.model, self.pictures.source
        grid = model.grid(self.steps)

        def compute(rows: slice) -> dict[str, Tensor]:
            latent = noise[rows]
            if inversion is not None:
                method, start = parse_method(inversion[0]), parse_start(inversion[1])
                known: dict[str, Any] = {"method": method, "start": start, "condition": self.labels[rows], "grid": grid}
                latent = self.lab.trajectory(self.pictures, rows, **known).latent
            edited = sample(model, latent, grid=grid, condition=self.targets[rows], guidance=self.guidance)
            return {"images": edited.images, "back": sample(model, latent, grid=grid, condition=self.labels[rows]).images}

        settings = {"way": list(inversion or ()), "steps": self.steps, "guidance": self.guidance, "labels": list(self.labels)}
        return self.lab.streamed("edits to another class", self.pictures, compute, **settings)


def _table(edits: _Edits) -> Table:
    measures = (edits.distances, edits.changes, edits.alignments)
    rows = [(title, *(str(bootstrap(measure[title])) for measure in measures)) for title in edits.images]
    rows.append(("images as they are", "0", "0", str(bootstrap(edits.unedited))))
    rows.append(("images as they are, their own class", "0", "0", str(bootstrap(edits.own))))
    head = ("sampled from", "distance to the image", "change by the edit", "alignment with the new class")
    return Table(head, tuple(rows))


def _chart(edits: _Edits) -> plotting.Drawing:
    spans = {title: (bootstrap(edits.distances[title]), bootstrap(edits.alignments[title])) for title in edits.images}
    return plotting.tradeoff(
        {title: (across.estimate, up.estimate) for title, (across, up) in spans.items()},
        "distance to the image (left: faithful; the line: as from true noise)",
        "alignment with the new class",
        spans[NOISE][0].estimate,
        bars={title: ((across.low, across.high), (up.low, up.high)) for title, (across, up) in spans.items()},
    )


def _rows(edits: _Edits) -> list[plotting.PictureRow]:
    return [
        plotting.PictureRow("images", edits.pictures.shown[:SHOWN]),
        *(plotting.PictureRow(title, images[:SHOWN].clamp(-1, 1)) for title, images in edits.images.items()),
    ]


def _claims(edits: _Edits) -> list[Judged]:
    """Paired over images."""
    claims: list[Judged] = []
    kinds = {
        "stay closer to the image": edits.distances,
        "change less against what the same latent gives under its own class": edits.changes,
        "follow the new class less": edits.alignments,
    }
    for words, measure in kinds.items():
        gap = bootstrap(measure[NOISE] - measure[USUAL])
        claims.append((f"Edits of DDIM latents {words} than edits of the noise.", signed(gap), exceeds(gap, 0)))
        for title in list(edits.images)[2:]:
            share = gap_closed(*(measure[each] for each in (title, USUAL, NOISE)))
            numbers = f"{percent(share)} of the gap {signed(gap)}" if gap.low > 0 else f"no gap to close: {signed(gap)}"
            holds = exceeds(share, HALF) if gap.low > 0 else None
            claims.append((f"... {title} closes most of that gap (half; the bound is ours).", numbers, holds))
    return claims
