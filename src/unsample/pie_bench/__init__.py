"""An editing benchmark in the layout of PIE-Bench: any function that edits, measured with its seven numbers.

`read_layout` reads a folder, `measure` edits and measures it beside three rows that say what the numbers are worth, and
`make_small_set` writes such a folder from labelled photographs. docs/editing-benchmark.md has the quirks of each number.
"""

from __future__ import annotations

from .layout import Entry, Failure, Layout, decode_mask, encode_mask, read_layout
from .measures import METRICS, Compared, Metric, Perception, background_mse, background_psnr, background_ssim
from .rows import EditImage, measure
from .scores import Scores
from .small_set import Labelled, make_small_set, read_labelled
from .structure import dino_keys, self_similarity, structure_distance

__all__ = [
    "METRICS",
    "Compared",
    "EditImage",
    "Entry",
    "Failure",
    "Labelled",
    "Layout",
    "Metric",
    "Perception",
    "Scores",
    "background_mse",
    "background_psnr",
    "background_ssim",
    "decode_mask",
    "dino_keys",
    "encode_mask",
    "make_small_set",
    "measure",
    "read_labelled",
    "read_layout",
    "self_similarity",
    "structure_distance",
]
