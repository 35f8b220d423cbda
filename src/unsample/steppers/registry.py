"""Every method by the name the command line knows it by, with its family, its source and how to write its options."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ArgumentError, UnknownNameError
from .base import Stepper, is_reversible
from .ddim import DDIM

__all__ = ["METHODS", "Method", "parse_method", "sampler_of"]


@dataclass(frozen=True)
class Method:
    """A method of the registry; calling it makes a stepper."""

    make: Callable[..., Stepper]
    family: str
    source: str

    def __call__(self, **options: Any) -> Stepper:
        """The stepper, with `options` for its fields."""
        return self.make(**options)


METHODS: dict[str, Method] = {
    "ddim": Method(DDIM, "explicit", "Song et al. 2021"),
}


def parse_method(text: str, **options: Any) -> Stepper:
    """A method from what people type: its name, then options: `fixed-point:iterations=3`.

    Raises:
        UnknownNameError: No such method, or no such option of it.
        ArgumentError: An option whose value is not one.

    >>> parse_method("ddim:eval_at=source")
    DDIM(eval_at='source', clip=None)
    """
    name, _, rest = text.strip().partition(":")
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    given = dict(options)
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ArgumentError(f"expected options like {name}:name=value, given {pair!r}")
        given[key.strip().replace("-", "_")] = _value(value.strip())
    known = [field.name for field in fields(METHODS[name].make)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise UnknownNameError(f"option of method {name!r}:", key, known or ["none"])
    try:
        return METHODS[name](**given)
    except TypeError as error:
        raise ArgumentError(f"method {text!r}: {error}") from None


def sampler_of(method: Stepper) -> Stepper:
    """What samples back from the latents of `method`: itself if it is reversible, DDIM otherwise."""
    return method if is_reversible(method) else DDIM()


def _value(text: str) -> Any:
    """A number, a tuple, True, False or None as Python writes them; anything else is a word."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
