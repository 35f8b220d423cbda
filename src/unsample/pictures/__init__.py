"""Reading photographs, and drawing figures: the only package that imports matplotlib.

Figures are made of tensors and numbers and come out as bytes. `overview` and `sheet` show photographs and latents, `tradeoff`
plots cost against closeness to true noise, `charts` are curves, bars and maps, `forest` intervals row by row, `strip` and
`animation` the frames of an interpolation.
"""

from __future__ import annotations

from ._canvas import Drawing
from .charts import Bar, Curve, Panel, PictureRow, bars, curves, heatmaps, picture_rows, triangles
from .forest import Column, forest
from .frames import ANIMATIONS, animation, check_animation, strip
from .overview import ROWS, LatentColumns, latent_picture, overview, sheet
from .plane import tradeoff

__all__ = [
    "ANIMATIONS",
    "ROWS",
    "Bar",
    "Column",
    "Curve",
    "Drawing",
    "LatentColumns",
    "Panel",
    "PictureRow",
    "animation",
    "bars",
    "check_animation",
    "curves",
    "forest",
    "heatmaps",
    "latent_picture",
    "overview",
    "picture_rows",
    "sheet",
    "strip",
    "tradeoff",
    "triangles",
]
