"""Pictures for people. The only package that knows matplotlib; figures go in as tensors and numbers, and out as bytes.

`overview` and `sheet` show photographs and latents, `tradeoff` names points in a plane, `charts` are curves, bars and maps,
`forest` intervals row by row.
"""

from __future__ import annotations

from ._canvas import Drawing
from .charts import Bar, Curve, Panel, Row, bars, curves, heatmaps, pictures, triangles
from .forest import Column, forest
from .overview import ROWS, Inverted, latent_picture, overview, sheet
from .plane import tradeoff

__all__ = [
    "ROWS",
    "Bar",
    "Column",
    "Curve",
    "Drawing",
    "Inverted",
    "Panel",
    "Row",
    "bars",
    "curves",
    "forest",
    "heatmaps",
    "latent_picture",
    "overview",
    "pictures",
    "sheet",
    "tradeoff",
    "triangles",
]
