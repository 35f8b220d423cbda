"""Attention editors by name, and the parser of their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_type_hints

from ..._arguments import shown
from ...core.specs import Checked, check_options, fitting, parse_spec
from ...errors import ArgumentError, UnknownNameError
from .editors import Editor, MasaCtrl, PromptToPrompt, StyleAligned

if TYPE_CHECKING:  # callers may give text as well, which `read_editor` has read before a function sees it
    EditorLike = Any
else:
    EditorLike = Editor

PROMPT = "prompt"
"""The name for no editor: only the prompt changes."""


@dataclass(frozen=True)
class Named(Checked):
    """An editor, and where its targets start.

    Attributes:
        editor: With its options.
        fresh: Whether targets start from their own noise, or from the source's latent.
    """

    editor: Editor
    fresh: bool = False


EDITORS: dict[str, tuple[Callable[..., Editor], bool]] = {
    "masactrl": (MasaCtrl, False),
    "stylealigned": (StyleAligned, True),
    "p2p": (PromptToPrompt, False),
}
"""Name -> its options, and the default of `fresh`."""


def parse_editor(text: str) -> Named | None:
    """The editor of a text `name:option=value`; None for `prompt`, which is none.

    Besides its own options each takes `fresh`. Several words or weights are separated by commas.

    Raises:
        UnknownNameError: No such editor, or no such option of it.
        ArgumentError: An option whose value is not one.

    >>> parse_editor("masactrl:from_step=2")
    Named(editor=MasaCtrl(from_step=2, from_layer=10), fresh=False)
    >>> parse_editor("p2p:words=red,old:weights=2,0.5").editor.weights
    (2.0, 0.5)
    """
    name, given = parse_spec(text)
    if name not in (PROMPT, *EDITORS):
        raise UnknownNameError("editor", name, [PROMPT, *EDITORS])
    make, fresh = EDITORS.get(name, (None, False))
    known: dict[str, Any] = {} if make is None else {**get_type_hints(make), "fresh": bool}
    check_options(f"editor {name!r}", given, known)
    options = {key: fitting(value, known[key]) for key, value in given.items()}
    fresh = options.pop("fresh", fresh)
    return None if make is None else Named(make(**options), fresh)


def read_editor(name: str, value: Any) -> Editor:
    """An editor, or one as people type it: `masactrl:from_step=2`.

    Raises:
        ArgumentError: No editor, or one with `fresh`, which says where targets start.
    """
    if isinstance(value, str):
        named = parse_editor(value)
        if named is None or ":fresh=" in value:
            raise ArgumentError(f"expected {name} as an editor of attention without fresh, one of {', '.join(EDITORS)}")
        return named.editor
    if isinstance(value, type) or not isinstance(value, Editor):
        raise ArgumentError(f"expected {name} as an editor such as us.MasaCtrl() or its name, given {shown(value)}")
    return value
