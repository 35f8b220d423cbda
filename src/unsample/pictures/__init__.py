"""Pictures for people. The only package that knows matplotlib; figures go in as tensors and numbers, and out as bytes.

`overview` and `sheet` show photographs and latents, `tradeoff` names points in a plane, `charts` are curves, bars and maps,
`forest` intervals row by row, `strip` and `animation` frames of a way.
"""

from __future__ import annotations

from ._canvas import Drawing
from .charts import Bar, Curve, Panel, Row, bars, curves, heatmaps, pictures, triangles
from .forest import Column, forest
from .frames import ANIMATIONS, animation, check_animation, strip
from .overview import ROWS, Inverted, latent_picture, overview, sheet
from .plane import tradeoff

__all__ = [
    "ANIMATIONS",
    "ROWS",
    "Bar",
    "Column",
    "Curve",
    "Drawing",
    "Inverted",
    "Panel",
    "Row",
    "animation",
    "bars",
    "check_animation",
    "curves",
    "forest",
    "heatmaps",
    "latent_picture",
    "overview",
    "pictures",
    "sheet",
    "strip",
    "tradeoff",
    "triangles",
]
