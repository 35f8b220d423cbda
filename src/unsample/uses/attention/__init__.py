"""Editing by attention: a source and its targets walk down side by side, and the targets attend as the source does.

`edit_attention` takes one of three editors: `MasaCtrl`, `StyleAligned` and `PromptToPrompt`. An editor is its options; bound
to prompts and layers it is an `Edit`, which says where it acts and what attention becomes there (`models/attention.py`).
`Picture.edit` puts an inverted picture beside its targets, for `unsample edit` and the editing benchmark.
"""

from __future__ import annotations

from .edit import Edited, bound, edit_attention
from .editors import Editor, MasaCtrl, PromptToPrompt, StyleAligned
from .pictures import Picture, inverted_with_states, walks_from_the_latent
from .registry import EDITORS, PROMPT, Named, parse_editor

__all__ = [
    "EDITORS",
    "PROMPT",
    "Edited",
    "Editor",
    "MasaCtrl",
    "Named",
    "Picture",
    "PromptToPrompt",
    "StyleAligned",
    "bound",
    "edit_attention",
    "inverted_with_states",
    "parse_editor",
    "walks_from_the_latent",
]
