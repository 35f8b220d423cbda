"""Every attention editor by the name the command line knows it by, and how to write its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ...core.specs import check_options, parse_spec
from ...errors import ArgumentError, UnknownNameError
from .editors import Editor, MasaCtrl, PromptToPrompt, StyleAligned

__all__ = ["EDITORS", "Named", "parse_editor"]

PROMPT = "prompt"
"""No editor: the prompt alone is another."""

WRITTEN = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}


@dataclass(frozen=True)
class Named:
    """An editor, and where its targets begin.

    Attributes:
        editor: With its options.
        fresh: Whether targets begin at noise of their own, or at the source's latent.
    """

    editor: Editor
    fresh: bool = False


EDITORS: dict[str, tuple[Callable[..., Editor], bool]] = {
    "masactrl": (MasaCtrl, False),
    "stylealigned": (StyleAligned, True),
    "p2p": (PromptToPrompt, False),
}
"""Name -> its options, and whether targets begin at noise of their own unless told otherwise."""


def parse_editor(text: str) -> Named | None:
    """An editor from what people type: its name, then options, with colons between; None for `prompt`, which is none.

    Besides its own options each takes `fresh`. Of several words or weights, commas are between.

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
    options = {key: _fitting(f"editor {name!r}: {key}", value, known[key]) for key, value in given.items()}
    fresh = options.pop("fresh", fresh)
    return None if make is None else Named(make(**options), fresh)


def _fitting(what: str, value: Any, kind: Any) -> Any:
    """A value of the kind that an option has: a number, a word, True or False, or several of them."""
    if get_origin(kind) is tuple:
        several = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple) else (value,)
        return tuple(_fitting(what, each, get_args(kind)[0]) for each in several)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise UnknownNameError(what, str(value), get_args(kind))
        return value
    if kind is str:
        return str(value)
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(value)
    raise ArgumentError(f"{what}: expected {WRITTEN[kind]}, given {value!r}")
