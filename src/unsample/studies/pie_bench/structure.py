"""Structure distance: whether an edit keeps the layout of an image, whatever its colours and textures.

The patches of an image are compared with each other by the cosine of their keys in DINO's last layer; the mean squared
difference of two such matrices is the distance (Tumanyan et al. 2022, arXiv 2201.00424, as PIE-Bench reports it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ..._tensors import Images
from ...diagnostics._checks import PerImage, check_same_shape
from ...errors import ModelError
from ...models.perceptual import IMAGENET_COLOURS, SIDE, apply_dino

Keys = Float[Tensor, "batch tokens features"]

PUBLISHED_WHITE = 255.0
"""White before DINO's colours are taken out, in the published evaluation, which does not divide by 255; DINO's was 1."""


def structure_distance(images: Images, others: Images, *, keys: Callable[[Images], Keys] | None = None) -> PerImage:
    """Mean squared difference of the cosines of keys: 0 for the same image.

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three.
        others: The same shape.
        keys: From images to keys; default is `dino_keys`.

    Returns:
        [B] float64.

    Raises:
        ArgumentError: Shapes that differ.
        ModelError: The package or the weights are missing.

    >>> patches = lambda x: x.flatten(2)  # a stand-in: channels as tokens
    >>> structure_distance(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2), keys=patches).tolist()
    [0.0]
    """
    check_same_shape(images, others, ("images", "others"))
    keys_of = keys or dino_keys
    apart = self_similarity(keys_of(images)) - self_similarity(keys_of(others))
    return apart.square().mean((1, 2)).double()


def self_similarity(keys: Keys) -> Float[Tensor, "batch tokens tokens"]:
    """The cosine of each token's keys with each other's.

    >>> self_similarity(torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])).round(decimals=3).tolist()
    [[[1.0, 0.7070000171661377], [0.7070000171661377, 1.0]]]
    """
    norm = keys.norm(dim=2, keepdim=True)
    cosines: Tensor = keys @ keys.mT / (norm @ norm.mT).clamp_min(1e-8)
    return cosines


def dino_keys(images: Images, *, weights: str = "facebook/dino-vitb8", white: float = PUBLISHED_WHITE, batch: int = 4) -> Keys:
    """The keys of all tokens, the class token's first, in the last layer of a vision transformer; all heads side by side.

    Images are resized to 224 x 224 (bilinear, antialiased).

    Args:
        images: [B, C, H, W] in [-1, 1], one channel or three.
        weights: A DINO, version 1, by its name on the hub, or its directory.
        white: What white is when the mean colour is taken out: 255 is as published, 1 as DINO was trained.
        batch: Images at once.

    Returns:
        [B, T, D]: 785 tokens of 768 values for the default.

    Raises:
        ArgumentError: Not images.
        ModelError: The package or the weights are missing, or the network is no vision transformer.

    >>> dino_keys(torch.zeros(1, 3, 64, 64)).shape  # doctest: +SKIP
    torch.Size([1, 785, 768])
    """
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in IMAGENET_COLOURS)

    def keys(network: Any, part: Images) -> Tensor:
        unit: Tensor = (interpolate(part, size=(SIDE, SIDE), mode="bilinear", antialias=True) + 1) / 2
        return _last_keys(network, (unit * white - mean) / std)

    return apply_dino(keys, images, weights=weights, batch=batch)


def _last_keys(network: Any, pixels: Tensor) -> Tensor:
    """The output of the last layer's projection to keys for `pixels`."""
    names = {"key", "k_proj"}  # in transformers before version 5, and since
    projections = [module for name, module in network.named_modules() if name.rpartition(".")[2] in names]
    if not projections:
        raise ModelError(
            f"structure distance: {type(network).__name__} has no projection to keys; choose a vision transformer"
        )
    seen: list[Tensor] = []
    hook = projections[-1].register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        network(pixel_values=pixels)
    finally:
        hook.remove()
    return seen[-1]
