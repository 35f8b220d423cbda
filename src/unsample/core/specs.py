"""Things with options as people type them, `name:key=value:key=value`: methods, spacings and attention editors alike."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable
from typing import Any

from ..errors import ArgumentError, UnknownNameError

__all__ = ["check_options", "parse_spec"]


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options. Dashes in an option's name are underscores.

    Values are numbers, tuples, True, False or None as Python writes them; anything else is a word.

    Raises:
        ArgumentError: An option without a value.

    >>> parse_spec("damped:iterations=10:warm-up=None:kind=refine")
    ('damped', {'iterations': 10, 'warm_up': None, 'kind': 'refine'})
    """
    name, *pairs = text.strip().split(":")
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ArgumentError(f"expected options like {name}:name=value, given {pair!r}")
        options[key.strip().replace("-", "_")] = _value(value.strip())
    return name, options


def check_options(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse an option that `owner`, for example `method 'ddim'`, does not have.

    Raises:
        UnknownNameError: An option that is not among the `known`.
    """
    for key in given:
        if key not in known:
            raise UnknownNameError(f"option of {owner}:", key, known or ["none"])


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
