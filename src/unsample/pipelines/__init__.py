"""The doors: every call of the library on whatever people have at hand.

A model may be given as a `Model`, a live diffusers pipeline, a name or a directory; pictures as a tensor, PIL images, arrays
or files. Here they become a `Model` and a tensor, all that the modules know which do the work: `inversion`, `sampling`,
`editing`, `interpolation`, `editors`. What is settled here is nothing else but what has to be inverted first.
"""

from __future__ import annotations

from .attending import edit_attention
from .between import interpolate
from .editing import edit, variations
from .opening import Picture, Pipeline
from .walking import invert, reconstruct, sample

__all__ = [
    "Picture",
    "Pipeline",
    "edit",
    "edit_attention",
    "interpolate",
    "invert",
    "reconstruct",
    "sample",
    "variations",
]
