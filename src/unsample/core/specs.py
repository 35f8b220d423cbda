"""Things with options as people type them, `name:key=value:key=value`: methods, spacings and attention editors alike."""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Iterable
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from ..errors import ArgumentError, UnknownNameError, shortened

LONGEST = 400
"""Characters of a value: enough for a list of words, too few for Python's parser to run out of its stack."""

LARGEST = 100_000
"""Iterations, steps, timesteps: ten times as many as schedules are trained on."""

WRITTEN = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}


def parse_spec(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options. Dashes in an option's name are underscores.

    Values are numbers, tuples, True, False or None as Python writes them; anything else is a word.

    Raises:
        ArgumentError: An option without a value, or twice; a value too long or too large.

    >>> parse_spec("damped:iterations=10:warm-up=None:kind=refine")
    ('damped', {'iterations': 10, 'warm_up': None, 'kind': 'refine'})
    """
    name, *pairs = text.strip().split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals:
            raise ArgumentError(f"expected options like {shortened(name)}:name=value, given {shortened(repr(pair))}")
        if key in options:
            raise ArgumentError(f"option {shortened(key)} of {shortened(name)} is given twice")
        options[key] = _value(key, value.strip())
    return name, options


def check_options(owner: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse an option that `owner`, for example `method 'ddim'`, does not have.

    Raises:
        UnknownNameError: An option that is not among the `known`.
    """
    for key in given:
        if key not in known:
            raise UnknownNameError(f"option of {owner}:", key, known)


def fitting(what: str, value: Any, kind: Any) -> Any:
    """A value of the kind that an option has: a number, a word, True or False, one of several, or several of them.

    A kind that cannot be written as text takes any value.

    Raises:
        ArgumentError: A value of another kind.

    >>> fitting("rho", 1, float), fitting("words", "red,old", tuple[str, ...]), fitting("patience", None, int | None)
    (1.0, ('red', 'old'), None)
    """
    kinds = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return None if value is None and type(None) in kinds else fitting(what, value, kinds[0])
    if get_origin(kind) is tuple:
        several = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple) else (value,)
        if kinds[-1] is not ... and len(several) != len(kinds):
            raise ArgumentError(f"{what}: expected {len(kinds)} values with commas between, given {len(several)}")
        return tuple(fitting(what, each, kinds[0]) for each in several)
    if get_origin(kind) is Literal:
        if value not in kinds:
            raise ArgumentError(f"{what} {shortened(repr(value))}: expected one of {', '.join(map(str, kinds))}")
        return value
    if kind not in WRITTEN:
        return value
    if kind is str:
        return str(value)
    if type(value) is kind or (kind is float and type(value) is int):
        return kind(value)
    raise ArgumentError(f"{what}: expected {WRITTEN[kind]}, given {shortened(repr(value))}")


def _value(key: str, text: str) -> Any:
    if len(text) > LONGEST:
        raise ArgumentError(f"option {shortened(key)}: expected at most {LONGEST} characters, given {len(text)}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all of which it raises on odd text
        return text
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, (int, float)) and not (math.isfinite(each) and abs(each) <= LARGEST):
            raise ArgumentError(f"option {shortened(key)}: expected a number of at most {LARGEST:,}, given {shortened(text)}")
        if not isinstance(each, (int, float, str, type(None))):
            return text
    return value
