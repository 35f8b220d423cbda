"""Sizes of images, and the shapes of the states that a network works on."""

from __future__ import annotations

from typing import Any

from ...errors import ArgumentError, ModelError

Size = tuple[int, int]


def state_shape(size: Size | None, channels: int, own: Any, *, multiple: int = 1, scale: int = 1) -> tuple[int, int, int]:
    """Channels, height and width of the states of images of `size`, if the network can take them.

    Args:
        size: Height and width of the images in pixels; None for the network's own.
        channels: Of a state.
        own: A config's `sample_size`: height and width of the network's own states, or one number for both.
        multiple: Heights and widths of states are multiples of it.
        scale: Image pixels per cell of a state.

    Raises:
        ArgumentError: Another size than the network can take, or none for a network without its own.

    >>> state_shape(None, 4, 64, scale=8), state_shape((512, 768), 4, 64, multiple=2, scale=8)
    ((4, 64, 64), (4, 64, 96))
    """
    if size is None and own is None:
        raise ArgumentError("the network's config states no sample_size: give the size of the images, as size=(512, 512)")
    if size is None:
        height, width = (own, own) if isinstance(own, int) else own
        return channels, height, width
    (height, width), pixels = size, multiple * scale
    if height < pixels or width < pixels or height % pixels or width % pixels:
        raise ArgumentError(f"size {height}x{width}: this model takes heights and widths that are multiples of {pixels}")
    return channels, height // scale, width // scale


def halvings(config: Any) -> int:
    """The number by which a U-Net divides height and width on its way down."""
    return int(2 ** (len(config.block_out_channels) - 1))


def noise_channels(inputs: int, outputs: int) -> int:
    """How many of a network's outputs are the prediction; the others, as many again, are a learned variance.

    Raises:
        ModelError: A network whose input is more than the state, such as one for inpainting.
    """
    if outputs not in (inputs, 2 * inputs):
        raise ModelError(
            f"the network maps {inputs} to {outputs} channels; expected {inputs}, or {2 * inputs} with a learned variance: "
            "networks for inpainting or upscaling are not inverted"
        )
    return inputs
