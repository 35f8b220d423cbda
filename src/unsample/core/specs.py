"""Things with options, as people type them `name:key=value:key=value`: methods, starts, spacings, attention editors alike."""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .._arguments import number, one_of, shown, whole
from ..errors import ArgumentError, UnknownNameError, shortened

T = TypeVar("T")

LONGEST = 400
"""Characters of a value: enough for a list of words, too few for Python's parser to run out of its stack."""

LARGEST = 100_000
"""Iterations, steps, timesteps: ten times as many as schedules are trained on."""


class Checked:
    """Base class of dataclasses whose options people give: each has the kind that its field says when one is made."""

    def __new__(cls: type[T], *given: Any, **named: Any) -> T:
        """The same, with its options checked."""
        made_as: Any = cls
        if hasattr(cls, "__dataclass_fields__"):
            check_fields(cls, dict(zip(_kinds_of(made_as), given, strict=False)) | named)
        made: T = object.__new__(cls)
        return made


def check_fields(cls: Any, values: Mapping[str, Any]) -> None:
    """Refuse values of another kind than the fields of a dataclass have.

    Raises:
        ArgumentError: The first of them.
    """
    kinds = _kinds_of(cls)
    for name, value in values.items():
        if name in kinds:
            _check_kind(f"{name} of {cls.__name__}", value, kinds[name])


@functools.cache
def _kinds_of(cls: Any) -> dict[str, Any]:
    """Option -> its type, in order."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def _check_kind(name: str, value: Any, kind: Any) -> None:
    if isinstance(kind, UnionType):
        first, *others = get_args(kind)
        if not any(isinstance(other, type) and isinstance(value, other) for other in others):
            _check_kind(name, value, first)
    elif kind is int:
        whole()(name, value)
    elif kind is float:
        number(name, value)
    elif get_origin(kind) is tuple:
        of = get_args(kind)
        if of[-1] is ...:
            of = of[:1] * len(value) if isinstance(value, (tuple, list)) else ()
        if not isinstance(value, (tuple, list)) or len(value) != len(of):
            raise ArgumentError(f"expected {name} as {f'{len(of)} values' if of else 'a tuple'}, given {shown(value)}")
        for each, one in zip(value, of, strict=True):
            _check_kind(name, each, one)
    elif get_origin(kind) is Literal:  # which of them the class checks
        one_of("a word or a number", str, int)(name, None if isinstance(value, bool) else value)
    elif isinstance(kind, type):
        one_of(f"a {kind.__name__}" if kind is not bool else "True or False", kind)(name, value)


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


def fitting(value: Any, kind: Any) -> Any:
    """A typed value in the form of its kind: several split at commas, and words as texts. The kind itself `Checked` checks.

    >>> fitting(1, float), fitting("red,old", tuple[str, ...]), fitting(None, int | None)
    (1.0, ('red', 'old'), None)
    """
    if isinstance(kind, UnionType):
        return None if value is None else fitting(value, get_args(kind)[0])
    if get_origin(kind) is tuple:
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple) else (value,)
        return tuple(fitting(each, get_args(kind)[0]) for each in parts)
    if kind is float and type(value) is int:
        return float(value)
    return str(value) if kind is str else value


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
