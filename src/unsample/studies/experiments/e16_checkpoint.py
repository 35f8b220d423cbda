"""What E16 measures of one checkpoint of a training: its samples from given noise and their latents, beside the last one's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...diagnostics import Row, bootstrap, feature_cosine, linear_cka, nulls, psnr, ssim, svcca, triangle
from ...diagnostics._checks import IMAGE_LIMIT
from ...diagnostics.assignment import assignment_accuracy
from ...diagnostics.fidelity import SSIM_SIDE
from ...diagnostics.frechet import frechet_jackknife, frechet_null
from ...diagnostics.null import student_reach
from ...diagnostics.row import PATCH_ROW
from ...errors import ModelError
from ...models.classifier import Classifier, load_classifier
from .checkpoints import load_checkpoint
from .lab import Lab, Pictures, RoundTrip
from .paired import GROUPS, Array, alignment_of_items, alignment_of_sets, left_out
from .verdicts import row_of

IMAGE, LATENT = "generations", "latents"
IMAGES = ("CKA, generations", "SVCCA, generations", "cosine, generations", "SSIM", "PSNR, dB")
LATENTS = ("CKA, latents", "SVCCA, latents", "cosine, latents")
ANGLES = ("angle at the image", "angle at the noise", "angle at the latent")
FOUND = ("noise finds its image", "image finds its noise")
FRECHET = "Frechet distance"
WHITENESS = (PATCH_ROW, "std plain", "std other", "lag-1 plain", FRECHET)


SHOWN = 10
"""Images of a checkpoint that are kept for a figure."""

Rows = dict[str, Row]


@dataclass(frozen=True, eq=False)
class Stage:
    """What a checkpoint made.

    Attributes:
        pictures: Its generations.
        inverted: Their latents; None if the generations leave what can be inverted, as those of early checkpoints may.
    """

    pictures: Pictures
    inverted: RoundTrip | None

    @property
    def compared(self) -> dict[str, Tensor]:
        """What is compared with another checkpoint's."""
        latent = {} if self.inverted is None else {LATENT: self.inverted.latent}
        return {IMAGE: self.pictures.shown, **latent}


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of a checkpoint.

    Attributes:
        rows: Diagnostics by name.
        cka: Of generations and of latents with the last checkpoint's, `left_out`; empty for the last.
        angle: At each latent, in degrees; None without latents.
        shown: A few of its images.
    """

    rows: Rows
    cka: Mapping[str, Array]
    angle: Tensor | None
    shown: Tensor


def stage_of(lab: Lab, file: Path, count: int, steps: int) -> Stage:
    """Generations of a checkpoint, from the same noise whatever the checkpoint, and their latents."""
    here = replace(lab, model=load_checkpoint(file, lab.model))
    pictures = here.generated(count, steps)
    if float(pictures.pixels.abs().max()) > IMAGE_LIMIT:
        return Stage(pictures, None)
    return Stage(pictures, here.inverted(pictures, steps=steps))


def measure(lab: Lab, stage: Stage, last: Stage, judge: Classifier | None, coarse: int, division: int) -> Measured:
    """All that is measured of a checkpoint; beside the last one unless it is that."""
    shown, rows, angle = stage.pictures.shown, _quality(lab, stage.pictures.shown, judge), None
    if stage.inverted is not None:
        latent, noise = stage.inverted.latent, stage.pictures.source
        image = lab.encoded(stage.pictures).to(noise)
        whole = lab.diagnosed(stage.pictures, stage.inverted)
        rows |= {name: whole[name] for name in WHITENESS if name != FRECHET}
        rows |= _geometry(image, noise, latent, division)
        angle = triangle(image, noise, latent).at_latent
    if stage is last:
        return Measured(rows, {}, angle, shown[:SHOWN])
    ours, theirs = stage.compared, last.compared
    rows |= _aligned(ours, theirs, judge, coarse)
    cka = {name: left_out(linear_cka, ours[name], theirs[name]) for name in ours}
    return Measured(rows, cka, angle, shown[:SHOWN])


def _aligned(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], judge: Classifier | None, side: int) -> Rows:
    def coarse(x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, side)

    rows = []
    for what, a in ours.items():
        b = theirs[what]
        rows += [
            alignment_of_sets(f"CKA, {what}", linear_cka, a, b),
            alignment_of_sets(f"SVCCA, {what}", svcca, coarse(a), coarse(b)),
        ]
        sides = [judge.features(x).cpu() if judge and what == IMAGE else x for x in (a, b)]
        rows += [alignment_of_items(f"cosine, {what}", feature_cosine, sides[0], sides[1])]
    a, b = ours[IMAGE], theirs[IMAGE]
    rows += [alignment_of_items("SSIM", ssim, a, b)] if min(a.shape[2:]) >= SSIM_SIDE else []
    rows += [alignment_of_items("PSNR, dB", psnr, a, b)]
    return {row.name: row for row in rows}


def _geometry(image: Tensor, noise: Tensor, latent: Tensor, division: int) -> Rows:
    """Mean angles, and how often pairs are found by distance; the null has true noise for a latent, and for the noise."""
    angles = triangle(image, noise, latent).angles
    assignment = assignment_accuracy(noise, image, division)

    def drawn(x: Tensor) -> dict[str, float]:
        means = triangle(image, noise, x).angles.mean(0).tolist()
        shares = assignment_accuracy(x, image, division)
        return dict(zip((*ANGLES, *FOUND), (*means, shares.to_images.estimate, shares.to_noise.estimate), strict=True))

    null = nulls(drawn, noise.shape)
    intervals = [*(bootstrap(column) for column in angles.T), assignment.to_images, assignment.to_noise]
    named = zip((*ANGLES, *FOUND), intervals, strict=True)
    return {name: row_of(name, one, null[name]) for name, one in named}


def classifier_for(lab: Lab) -> Classifier | None:
    """The classifier that comes with unsample, if it is installed and takes such images."""
    if lab.model.shape[0] != 3 or lab.model.codec.scale != 1:
        return None
    try:
        return load_classifier(device=lab.model.device)
    except ModelError:
        return None


def _quality(lab: Lab, shown: Tensor, judge: Classifier | None) -> Rows:
    """The Frechet distance to photographs, at equal numbers; half of the photographs, so that the rest can give the null."""
    if judge is None or not lab.data:
        return {}
    real = judge.features(lab.photographs(2 * len(shown)).pixels).cpu()
    count = min(len(shown), len(real) // 2)
    if count < 2 * GROUPS:
        return {FRECHET: Row(FRECHET, math.nan, note=f"needs {4 * GROUPS} photographs, given {len(real)}")}
    apart = frechet_jackknife(judge.features(shown[:count]).cpu(), real[:count], features=judge.name, groups=GROUPS)
    reach = student_reach(GROUPS - 1) * (apart.error or 0.0)
    note = f"{count} and {count} images, biased upwards; null: two sets of photographs"
    return {FRECHET: Row(FRECHET, apart.value, apart.value - reach, apart.value + reach, frechet_null(real, count), note)}
