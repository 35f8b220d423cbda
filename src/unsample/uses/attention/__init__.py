"""Editing by attention: a source and its targets are sampled side by side, and the targets use the source's attention.

`edit_attention` takes one of three editors: `MasaCtrl`, `StyleAligned` and `PromptToPrompt`. An editor is its options; bound
to prompts and layers it is an `AttentionChange` (`hooks.py`), which says where it acts and what attention becomes there.
`SourcePicture.edit` samples an inverted picture beside its targets, for `unsample edit` and the editing benchmark.
"""

from __future__ import annotations

from .edit import AttentionEdit, bound, edit_attention
from .editors import Editor, MasaCtrl, PromptToPrompt, StyleAligned
from .pictures import SourcePicture, inverted_with_states, samples_from_latent
from .registry import EDITORS, PROMPT, Named, parse_editor

__all__ = [
    "EDITORS",
    "PROMPT",
    "AttentionEdit",
    "Editor",
    "MasaCtrl",
    "Named",
    "PromptToPrompt",
    "SourcePicture",
    "StyleAligned",
    "bound",
    "edit_attention",
    "inverted_with_states",
    "parse_editor",
    "samples_from_latent",
]
