"""From one picture's noise to another's: paths between latents, and the images sampled along them.

Noise of many dimensions has nearly always the same norm, so that the straight line between two draws leaves where noise lies:
half way its norm is 0.71 of theirs. A great circle (`slerp`) stays there.
"""

from __future__ import annotations

from .images import Frames, Interpolation, frames_between, interpolate
from .paths import PATHS, along, corners, key_frames, lerp, norm, slerp

__all__ = [
    "PATHS",
    "Frames",
    "Interpolation",
    "along",
    "corners",
    "frames_between",
    "interpolate",
    "key_frames",
    "lerp",
    "norm",
    "slerp",
]
