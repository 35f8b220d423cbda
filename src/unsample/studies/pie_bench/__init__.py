"""An editing benchmark in the layout of PIE-Bench: any function that edits, measured with its seven numbers.

`read_layout` reads a folder, `measure` edits and measures it beside three rows that say what the numbers are worth, and
`make_small_set` writes such a folder from labelled photographs. `unsample edit-benchmark run` is `editable` entries and
`edits_at_equal_cost` in a `Benchmark`, which `benchmarked` runs or resumes. docs/editing-benchmark.md explains each number.
"""

from __future__ import annotations

from .benchmark import Benchmark
from .candidates import EditCandidate, edits_at_equal_cost, listed_editors
from .controls import EditImage, measure
from .entries import Editable, editable
from .layout import Entry, Failure, Layout, decode_mask, encode_mask, read_layout
from .metrics import METRICS, TARGET_CLASS, Compared, Metric, Perception, background_mse, background_psnr, background_ssim
from .report import benchmarked
from .scores import KINDS, Scores
from .small_set import Labelled, make_small_set, read_labelled
from .structure import dino_keys, self_similarity, structure_distance

__all__ = [
    "KINDS",
    "METRICS",
    "TARGET_CLASS",
    "Benchmark",
    "Compared",
    "EditCandidate",
    "EditImage",
    "Editable",
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
    "benchmarked",
    "decode_mask",
    "dino_keys",
    "editable",
    "edits_at_equal_cost",
    "encode_mask",
    "listed_editors",
    "make_small_set",
    "measure",
    "read_labelled",
    "read_layout",
    "self_similarity",
    "structure_distance",
]
