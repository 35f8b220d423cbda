"""Tensor shapes, named once. Checked at run time in the tests (jaxtyping and beartype), free otherwise."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""Pictures in [-1, 1]."""

State = Float[Tensor, "batch *state"]
"""What a walk carries: pixels or latents of a codec, one row per item."""

Latents = Float[Tensor, "batch cells cell_height cell_width"]
"""States of a codec, of another size than its images."""
