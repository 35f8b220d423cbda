"""Editing by attention: a source and its targets walk down side by side, and the targets attend as the source does.

`edit_attention` takes one of three editors: `MasaCtrl`, `StyleAligned` and `PromptToPrompt`. An editor is its options; bound
to prompts and layers it is an `Edit`, which says where it acts and what attention becomes there (`models/attention.py`).
"""

from __future__ import annotations

from .options import Editor, MasaCtrl, PromptToPrompt, StyleAligned
from .registry import EDITORS, Named, parse_editor
from .walking import Edited, bound, edit_attention

__all__ = [
    "EDITORS",
    "Edited",
    "Editor",
    "MasaCtrl",
    "Named",
    "PromptToPrompt",
    "StyleAligned",
    "bound",
    "edit_attention",
    "parse_editor",
]
