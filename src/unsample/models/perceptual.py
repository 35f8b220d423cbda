"""What pictures look like to networks trained for it: LPIPS, DreamSim, CLIP, DINO and the Inception features of FID.

Each is an optional package (`PERCEPTUAL`), imported by its name when its function is called; nothing else in unsample needs
one of them, or torchvision. All take images in [-1, 1], clamp them there, as a viewer would, and turn them into what their
network was trained on. Its package downloads the weights once, and the network is kept for the next call.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from .._tensors import Images
from ..diagnostics._checks import check_at_least, check_images, check_same_shape
from ..diagnostics.alignment import feature_cosine
from ..errors import ArgumentError, ModelError
from ..pictures.read import quantised

PerImage = Float[Tensor, " batch"]
Features = Float[Tensor, "batch features"]

SIDE = 224
"""Side of the pictures that DreamSim, CLIP and DINO are shown."""

CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of red, green and blue that a network expects to be taken out."""

LEAST_SIDE = 32  # of LPIPS: less leaves nothing of the last layers of its networks


@dataclass(frozen=True)
class Extra:
    """An optional package.

    Attributes:
        package: The module that is imported.
        install: What installs it.
        what: What it is here for.

    >>> PERCEPTUAL["lpips"].install
    'pip install lpips'
    """

    package: str
    install: str
    what: str


PERCEPTUAL = {
    "lpips": Extra("lpips", "pip install lpips", "LPIPS distance (Zhang et al. 2018)"),
    "dreamsim": Extra("dreamsim", "pip install dreamsim", "DreamSim distance (Fu et al. 2023)"),
    "clip": Extra("transformers", "pip install transformers", "CLIP cosine of image and text (Radford et al. 2021)"),
    "dino": Extra("transformers", "pip install transformers", "DINOv2 features and cosine (Oquab et al. 2023)"),
    "inception": Extra("torch_fidelity", "pip install torch-fidelity", "Inception features of FID (Heusel et al. 2017)"),
}
"""The metrics, and the package each needs."""


def lpips(images: Images, others: Images, *, net: str = "alex", batch: int = 32) -> PerImage:
    """LPIPS distance of each pair of images: 0 for the same, rarely above 1.

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three, sides of at least 32 pixels.
        others: The same shape.
        net: "alex", as distances are reported, "vgg" or "squeeze".
        batch: Pairs at once.

    Raises:
        ArgumentError: Not images, shapes that differ, or sides that are too small.
        ModelError: The package or the weights are missing.

    Source: Zhang et al. 2018 (arXiv 1801.03924), version 0.1 of its weights.

    >>> lpips(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)).tolist()  # doctest: +SKIP
    [0.0, 0.0]
    """
    _check_pairs(images, others)
    if min(images.shape[2:]) < LEAST_SIDE:
        raise ArgumentError(f"lpips: expected sides of at least {LEAST_SIDE}, given {tuple(images.shape)}; upscale first")
    network = _network("lpips", net, images.device)
    return _batched(lambda a, b: network(_colour(a), _colour(b), normalize=False).reshape(-1).double(), batch, images, others)


def dreamsim(images: Images, others: Images, *, kind: str = "ensemble", batch: int = 16) -> PerImage:
    """DreamSim distance of each pair of images, resized to 224 x 224: 1 minus the cosine of tuned features, 0 for the same.

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three.
        others: The same shape.
        kind: "ensemble", or one of its single networks, as "dino_vitb16".
        batch: Pairs at once.

    Raises:
        ArgumentError: Not images, or shapes that differ.
        ModelError: The package or the weights are missing.

    Source: Fu et al. 2023 (arXiv 2306.09344).

    >>> dreamsim(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)).tolist()  # doctest: +SKIP
    [0.0, 0.0]
    """
    _check_pairs(images, others)
    network = _network("dreamsim", kind, images.device)
    return _batched(lambda a, b: network(_shown(a), _shown(b)).reshape(-1).double(), batch, images, others)


def clip_score(
    images: Images, texts: Sequence[str], *, weights: str = "openai/clip-vit-base-patch32", batch: int = 32
) -> PerImage:
    """Cosine of each image, resized to 224 x 224, and its text in CLIP's space: about .15 for any text, .3 for a good one.

    Others report max(100 cosine, 0) (torchmetrics) or 2.5 max(cosine, 0) (Hessel et al. 2021).

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three.
        texts: One for each; CLIP reads the first 77 tokens.
        weights: A CLIP by its name on the hub, or its directory.
        batch: Pairs at once.

    Returns:
        [B] in [-1, 1].

    Raises:
        ArgumentError: Not images, or not as many texts.
        ModelError: The package or the weights are missing.

    Source: Radford et al. 2021 (arXiv 2103.00020); Hessel et al. 2021 (arXiv 2104.08718).

    >>> clip_score(torch.zeros(1, 3, 64, 64), ["a grey square"])  # doctest: +SKIP
    """
    _check(images)
    if isinstance(texts, str) or len(texts) != len(images):
        given = "one string" if isinstance(texts, str) else f"{len(texts)} texts"
        raise ArgumentError(f"texts: expected a list of {len(images)}, one for each image, given {given}; repeat a common one")
    network = _network("clip", weights, images.device)
    with _package("clip") as package:
        words = package.AutoTokenizer.from_pretrained(weights)(list(texts), padding=True, truncation=True, return_tensors="pt")

    def score(a: Images, ids: Tensor, attention: Tensor) -> PerImage:
        output = network(pixel_values=_normalised(a, CLIP_COLOURS), input_ids=ids, attention_mask=attention)
        return feature_cosine(output.image_embeds, output.text_embeds)

    return _batched(score, batch, images, *(words[key].to(images.device) for key in ("input_ids", "attention_mask")))


def dino_features(images: Images, *, weights: str = "facebook/dinov2-small", batch: int = 32) -> Features:
    """DINO's class token of each image, resized to 224 x 224, for `dino_cosine` and for a Frechet distance.

    The whole image is resized, where the package's own preparation would crop its border.

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three.
        weights: A DINO by its name on the hub, or its directory.
        batch: Images at once.

    Returns:
        [B, D]; D = 384 for the small one.

    Raises:
        ArgumentError: Not images.
        ModelError: The package or the weights are missing.

    Source: Oquab et al. 2023 (arXiv 2304.07193).

    >>> dino_features(torch.zeros(2, 3, 64, 64)).shape  # doctest: +SKIP
    torch.Size([2, 384])
    """

    def see(network: Any, a: Images) -> Features:
        return network(pixel_values=_normalised(a, IMAGENET_COLOURS)).last_hidden_state[:, 0]  # type: ignore[no-any-return]

    return apply_dino(see, images, weights=weights, batch=batch)


def apply_dino(function: Callable[[Any, Images], Tensor], images: Images, *, weights: str, batch: int) -> Tensor:
    """`function(network, images)` of a DINO network, for `batch` images at a time: three channels in [-1, 1], float32."""
    _check(images)
    network = _network("dino", weights, images.device)
    return _batched(lambda a: function(network, _colour(a)), batch, images)


def dino_cosine(images: Images, others: Images, *, weights: str = "facebook/dinov2-small", batch: int = 32) -> PerImage:
    """Cosine of the DINO features of each pair of images: 1 for the same. Arguments as `dino_features`.

    >>> dino_cosine(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 64, 64)).tolist()  # doctest: +SKIP
    [1.0, 1.0]
    """
    _check_pairs(images, others)
    return feature_cosine(*(dino_features(x, weights=weights, batch=batch) for x in (images, others)))


def inception_features(images: Images, *, batch: int = 32) -> Features:
    """The 2048 features of an image that FID compares, for `frechet(..., features="Inception 2048")`.

    The network of the original FID, which resizes to 299 x 299 itself. It is shown 8-bit pictures: images are rounded to them.

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three.
        batch: Images at once.

    Returns:
        [B, 2048].

    Raises:
        ArgumentError: Not images.
        ModelError: The package or the weights are missing.

    Source: Heusel et al. 2017 (arXiv 1706.08500), as converted by torch-fidelity.

    >>> inception_features(torch.zeros(2, 3, 64, 64)).shape  # doctest: +SKIP
    torch.Size([2, 2048])
    """
    _check(images)
    network = _network("inception", "2048", images.device)
    return _batched(lambda a: network(quantised(a).expand(-1, 3, -1, -1))[0], batch, images)


def _check(images: Images, name: str = "images") -> None:
    check_images(images, name)
    if images.shape[1] not in (1, 3):
        raise ArgumentError(f"{name}: expected 1 or 3 channels, given shape {tuple(images.shape)}; decode latents first")


def _check_pairs(images: Images, others: Images) -> None:
    _check(images)
    _check(others, "others")
    check_same_shape(images, others, ("images", "others"))


def _batched(function: Callable[..., Tensor], batch: int, *rows: Tensor) -> Tensor:
    """`function` of `batch` rows at a time, without gradients."""
    check_at_least(batch, 1, "batch")
    with torch.no_grad():
        return torch.cat([function(*(x[i : i + batch] for x in rows)) for i in range(0, len(rows[0]), batch)])


def _colour(images: Images) -> Float[Tensor, "batch 3 height width"]:
    """Three channels in [-1, 1], float32."""
    return images.detach().float().clamp(-1, 1).expand(-1, 3, -1, -1)


def _shown(images: Images) -> Float[Tensor, "batch 3 side side"]:
    """Three channels in [0, 1], 224 x 224."""
    return (interpolate(_colour(images), size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(-1, 1) + 1) / 2


def _normalised(images: Images, colours: tuple[Sequence[float], Sequence[float]]) -> Float[Tensor, "batch 3 side side"]:
    """`_shown` less the mean of each colour, over its standard deviation."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in colours)
    return (_shown(images) - mean) / std


@contextmanager
def _package(name: str) -> Iterator[Any]:
    """The package of PERCEPTUAL[name]; what is missing is said in one line, what it prints goes to standard error."""
    extra = PERCEPTUAL[name]
    try:
        with redirect_stdout(sys.stderr):
            yield importlib.import_module(extra.package)
    except ModuleNotFoundError as error:
        missing = error.name or extra.package
        raise ModelError(f"{name}: needs the package {missing}, which cannot be imported: {extra.install}") from error
    except OSError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{name}: its weights could not be loaded ({reason}); connect once, or copy them here") from error


@lru_cache(maxsize=4)
def _network(name: str, weights: str, device: torch.device) -> Any:
    with _package(name) as package:
        if name == "lpips":
            network = package.LPIPS(net=weights, verbose=False)
        elif name == "dreamsim":
            folder = Path(torch.hub.get_dir()) / "dreamsim"  # not its own choice, a folder in the working directory
            folder.mkdir(parents=True, exist_ok=True)
            network, _ = package.dreamsim(device=str(device), cache_dir=str(folder), dreamsim_type=weights)
        elif name == "inception":
            network = package.FeatureExtractorInceptionV3("inception-v3-compat", [weights])
        else:
            network = (package.CLIPModel if name == "clip" else package.AutoModel).from_pretrained(weights)
        return network.to(device).eval()
