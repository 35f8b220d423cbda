"""Editing: up under one condition, down under another; and variations, the same condition from other forward noise."""

from __future__ import annotations

from .edits import Edit, edit
from .masks import difference_mask, read_mask
from .variations import Variations, variations

__all__ = ["Edit", "Variations", "difference_mask", "edit", "read_mask", "variations"]
