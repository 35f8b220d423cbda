"""The seven numbers of PIE-Bench, with the quirks of their published evaluation (Ju et al. 2024, arXiv 2310.01506).

The "background" is outside of the edited region: both images are made black inside it, and then compared whole. So pixels of
the region count as equal: the larger it is, the better the numbers. "CLIP edited" shows CLIP the region on black.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool
from torch import Tensor

from ..._tensors import Images, brief
from ...diagnostics import mse, psnr, ssim
from ...diagnostics._checks import PerImage, check_mask
from ...errors import ModelError, UnsampleError
from ...models.classifier import Classifier, load_classifier
from ...models.perceptual import clip_score, lpips
from ...pictures.read import quantised
from .structure import structure_distance

Mask = Bool[Tensor, "batch height width"]

BLACK = -1.0


def clip_percent(images: Images, texts: Sequence[str]) -> PerImage:
    """100 max(cosine, 0) of each image and its text, by CLIP ViT-L/14, as torchmetrics reports it."""
    return 100 * clip_score(images, texts, weights="openai/clip-vit-large-patch14").clamp_min(0)


def lpips_squeeze(images: Images, others: Images) -> PerImage:
    """LPIPS by SqueezeNet, as in the published evaluation; most others report AlexNet's."""
    return lpips(images, others, net="squeeze")


@dataclass(frozen=True, eq=False)
class Perception:
    """The networks behind four of the numbers; any function of the same form may take their place.

    Attributes:
        structure: Structure distance of pairs of images.
        lpips: LPIPS of pairs of images.
        clip: Likeness of images and their texts.
    """

    structure: Callable[[Images, Images], PerImage] = structure_distance
    lpips: Callable[[Images, Images], PerImage] = lpips_squeeze
    clip: Callable[[Images, Sequence[str]], PerImage] = clip_percent


@brief
@dataclass(frozen=True, eq=False)
class Compared:
    """Edits beside their sources, [B, 3, H, W] in [-1, 1]; the edited region, Bool[B, H, W]; and the texts of the targets."""

    source: Images
    edited: Images
    mask: Mask
    texts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Metric:
    """A number.

    Attributes:
        name: Head of its column.
        better: "higher" or "lower".
        of: Its value per image, NaN where there is none.
    """

    name: str
    better: str
    of: Callable[[Compared, Perception], PerImage]


def background_psnr(source: Images, edited: Images, edited_region: Mask) -> PerImage:
    """PSNR in dB of two images made black in the region: infinite if they agree outside of it, NaN if it is the whole image.

    Its mean runs over all pixels: a region of three quarters adds 6 dB to the PSNR of the pixels outside of it.

    Args:
        source: [B, C, H, W] in [-1, 1].
        edited: The same shape.
        edited_region: Bool[B, H, W].

    Raises:
        ArgumentError: Shapes that do not fit, or values that are not images.

    >>> left = torch.tensor([[[True, False], [True, False]]])
    >>> background_psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2), left).round(decimals=3).tolist()
    [23.01]
    """
    return _outside(psnr, source, edited, edited_region)


def background_mse(source: Images, edited: Images, edited_region: Mask) -> PerImage:
    """Mean squared error in units of [0, 1] images, over all pixels of two images made black in the region. As above."""
    return _outside(lambda a, b: mse(a, b) / 4, source, edited, edited_region)


def background_ssim(source: Images, edited: Images, edited_region: Mask) -> PerImage:
    """SSIM of two images made black in the region, whose edge then counts as structure that both have. As above."""
    return _outside(ssim, source, edited, edited_region)


def blackened(images: Images, where: Mask) -> Images:
    """Images made black there, as the published evaluation does by multiplying with a mask in [0, 1].

    >>> blackened(torch.zeros(1, 1, 1, 2), torch.tensor([[[True, False]]])).tolist()
    [[[[-1.0, 0.0]]]]
    """
    check_mask(where, images)
    return images.masked_fill(where[:, None], BLACK)


def eight_bit(images: Images) -> Images:
    """Images as their files would be: clamped and rounded to 8 bits."""
    return quantised(images).to(images) / 127.5 - 1


def measured(
    compared: Compared, perception: Perception, reasons: dict[str, UnsampleError], metrics: Sequence[Metric] | None = None
) -> dict[str, PerImage]:
    """The numbers that can be computed, a value per image; the error of any other is put into `reasons` under its name.

    Of `metrics`, by default the seven. A network whose package or weights were missing is not tried again.
    """
    values: dict[str, PerImage] = {}
    for metric in METRICS if metrics is None else metrics:
        if isinstance(reasons.get(metric.name), ModelError):
            continue
        try:
            values[metric.name] = metric.of(compared, perception)
        except UnsampleError as error:  # what is missing, or an image that is too small
            reasons[metric.name] = error
    return values


@cache
def judge() -> Classifier:
    """The bundled classifier, loaded once."""
    return load_classifier(device="cpu")


def _target_class(compared: Compared, perception: Perception) -> PerImage:
    """NaN where the target is no class of the classifier."""
    known = judge().classes
    named = [text if text in known else known[0] for text in compared.texts]
    values = judge().class_alignment(compared.edited.float(), named).double()
    return values.masked_fill(torch.tensor([text not in known for text in compared.texts], device="cpu"), torch.nan).to(
        compared.edited.device
    )


def _outside(compare: Callable[[Images, Images], PerImage], source: Images, edited: Images, region: Mask) -> PerImage:
    values = compare(blackened(source, region), blackened(edited, region))
    return values.double().masked_fill(region.flatten(1).all(1), torch.nan)


def _clip_edited(compared: Compared, perception: Perception) -> PerImage:
    values = perception.clip(blackened(compared.edited, ~compared.mask), compared.texts)
    return values.double().masked_fill(~compared.mask.flatten(1).any(1), torch.nan)


METRICS = (
    Metric("structure distance", "lower", lambda c, p: p.structure(c.source, c.edited)),
    Metric("PSNR", "higher", lambda c, p: background_psnr(c.source, c.edited, c.mask)),
    Metric("LPIPS", "lower", lambda c, p: _outside(p.lpips, c.source, c.edited, c.mask)),
    Metric("MSE", "lower", lambda c, p: background_mse(c.source, c.edited, c.mask)),
    Metric("SSIM", "higher", lambda c, p: background_ssim(c.source, c.edited, c.mask)),
    Metric("CLIP whole", "higher", lambda c, p: p.clip(c.edited, c.texts)),
    Metric("CLIP edited", "higher", _clip_edited),
)
"""The columns, in the order of the paper's tables."""

TARGET_CLASS = Metric("target class", "higher", _target_class)
"""Ours, for prompts that are class names: the bundled classifier's probability of the target, of the whole edited image."""
