"""Maps of a latent to look at: where its values hang together, and where their spread is not that of noise.

Both are 0 in expectation everywhere on true noise, the edges included, and are in units of its variance, 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ..errors import ArgumentError
from ._checks import Batch, Map, check_batch


def local_correlation(x: Batch, window: int = 5) -> Map:
    """Mean product of touching pixels in the window about each pixel: lag-1 in units of the unit variance of noise.

    All pairs of values of one channel that touch along a row or a column and lie in the window (cut off at the image's edge)
    count alike. Nothing is subtracted and nothing divided, so a few pixels suffice, but a local mean shows as correlation.

    Args:
        x: [B, C, H, W].
        window: Odd, at least 3.

    Returns:
        [B, H, W] in the dtype of `x`.

    Raises:
        ArgumentError: Wrong dimensions, a single pixel, an even or small window, or values that are not finite.

    >>> local_correlation(torch.ones(1, 3, 8, 8)).unique()
    tensor([1.])
    """
    check_batch(x)
    _check_window(window, least=3)
    if max(x.shape[2:]) < 2:
        raise ArgumentError(f"x: expected at least two pixels, given shape {tuple(x.shape)}; a single one has no neighbour")
    x = x.detach()
    across = (x[..., :, 1:] * x[..., :, :-1]).mean(1)
    down = (x[..., 1:, :] * x[..., :-1, :]).mean(1)
    sums = [_box_sum(t, window, sides) for t, sides in ((across, (0, 1)), (down, (1, 0)))]
    counts = [_box_sum(torch.ones_like(t[:1]), window, sides) for t, sides in ((across, (0, 1)), (down, (1, 0)))]
    return (sums[0] + sums[1]) / (counts[0] + counts[1])


def excess_variance(x: Batch, window: int = 5) -> Map:
    """Mean of x^2 over the window about each pixel and all channels, minus 1: below 0 where there is too little noise.

    Args:
        x: [B, C, H, W].
        window: Odd; cut off at the image's edge.

    Returns:
        [B, H, W] in the dtype of `x`.

    Raises:
        ArgumentError: Wrong dimensions, an even window, or values that are not finite.

    >>> excess_variance(torch.full((1, 3, 8, 8), 2.0)).unique()
    tensor([3.])
    """
    check_batch(x)
    _check_window(window, least=1)
    square = x.detach().square().mean(1)
    return _box_sum(square, window, (0, 0)) / _box_sum(torch.ones_like(square[:1]), window, (0, 0)) - 1


def _check_window(window: int, least: int) -> None:
    if window < least or window % 2 == 0:
        raise ArgumentError(f"window: expected an odd number of pixels, at least {least}, given {window}; try {max(5, least)}")


def _box_sum(t: Tensor, window: int, less: tuple[int, int]) -> Tensor:
    """Sums of [B, H, W] over windows, zero-padded; `less` is 1 for a side along which `t` holds pairs, 0 for pixels."""
    reach = window // 2
    padded = pad(t[:, None], (reach, reach, reach, reach))
    return avg_pool2d(padded, (window - less[0], window - less[1]), stride=1, divisor_override=1)[:, 0]
