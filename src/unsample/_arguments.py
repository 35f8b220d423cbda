"""What callers write for an argument: other names of it, numbers of other libraries, and values that it cannot have.

`takes` wraps a public function: it reads each given argument by the reader of that name, accepts former names with a warning,
and says ours to callers who write those of diffusers.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from types import UnionType
from typing import Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from .errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

Reader = Callable[[str, Any], Any]
"""(name of the argument, what was given) -> the value."""

DIFFUSERS = {
    "guidance_scale": "guidance",
    "num_inference_steps": "steps",
    "num_inversion_steps": "steps",
    "generator": "seed",
    "negative_prompt": "negative",
    "source_prompt": "source",
    "target_prompt": "to",
    "class_labels": "condition",
    "image": "images",
    "latents": "latent",
    "mask_image": "mask",
    "height": "size=(height, width)",
    "width": "size=(height, width)",
    "callback_on_step_end": "on_step",
    "callback": "on_step",
    "torch_dtype": "dtype",
}
"""What diffusers calls it -> what it is called here."""


MOST = 1_000_000
"""No count of anything is higher: it would fill the memory, or never end."""


def whole(least: int | None = None, most: int = MOST) -> Reader:
    """A reader of whole numbers of Python or numpy: any, or those from `least` to `most`.

    >>> whole(1)("steps", 50)
    50
    """

    def read(name: str, value: Any) -> int:
        fine = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not fine or (least is not None and not least <= value <= most):
            limit = (
                "" if least is None else f" of at least {least}" + (f" and at most {most}" if fine and value > most else "")
            )
            raise ArgumentError(f"expected {name} as a whole number{limit}, given {shown(value)}")
        return int(value)

    return read


def number(name: str, value: Any) -> float:
    """Reads a finite number, of Python or numpy.

    >>> number("guidance", 3)
    3
    """
    real: Any = numbers.Real
    if isinstance(value, bool) or not isinstance(value, real) or not math.isfinite(value):
        raise ArgumentError(f"expected {name} as a finite number, given {shown(value)}")
    kept: float = value if isinstance(value, (int, float)) else float(value)  # an int stays one
    return kept


def text(name: str, value: Any) -> str:
    """Reads a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ArgumentError(f"expected {name} as text, given {shown(value)}")
    return value


def one_of(what: str, *kinds: Any) -> Reader:
    """A reader of instances of some classes; `what` they are says the message."""

    def read(name: str, value: Any) -> Any:
        if not isinstance(value, kinds):
            raise ArgumentError(f"expected {name} as {what}, given {shown(value)}")
        return value

    return read


def optional(reader: Reader) -> Reader:
    """The same reader, where None is a value, too."""
    return lambda name, value: None if value is None else reader(name, value)


def takes(readers: Mapping[str, Reader], **former: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of a public function that reads its arguments.

    Args:
        readers: Of each parameter; those without are left as they are, and so are defaults.
        former: Former name of a parameter -> its name. It is taken for one version, with a `DeprecationWarning`.

    >>> @takes({"steps": whole(1)}, count="steps")
    ... def walk(steps=50):
    ...     return steps
    >>> walk(num_inference_steps=20)
    Traceback (most recent call last):
    unsample.errors.ArgumentError: walk() has no num_inference_steps, as diffusers has: give steps
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature, called = inspect.signature(function), f"{function.__name__}()"

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            named = _named_as_ours(called, kwargs, former, signature.parameters)
            try:
                bound = signature.bind(*args, **named)
            except TypeError as error:
                raise TypeError(f"{called}: {error}") from None
            for name, value in bound.arguments.items():
                if name in readers:
                    bound.arguments[name] = readers[name](name, value)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


class Checked:
    """Base class of dataclasses whose options people give: each has the kind that its field says when one is made."""

    def __new__(cls: type[T], *given: Any, **named: Any) -> T:
        if hasattr(cls, "__dataclass_fields__"):
            made_as: Any = cls
            kinds = _kinds_of(made_as)
            for name, value in [*zip(kinds, given, strict=False), *named.items()]:
                if name in kinds:
                    _check_kind(f"{name} of {cls.__name__}", value, kinds[name])
        made: T = object.__new__(cls)
        return made


@functools.cache
def _kinds_of(cls: Any) -> dict[str, Any]:
    """Option -> its type, in order."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def _check_kind(name: str, value: Any, kind: Any) -> None:
    if isinstance(kind, UnionType):
        if value is not None or type(None) not in get_args(kind):
            _check_kind(name, value, get_args(kind)[0])
    elif kind is int:
        whole()(name, value)
    elif kind is float:
        number(name, value)
    elif get_origin(kind) is tuple:
        of = get_args(kind)
        if not isinstance(value, (tuple, list)) or len(value) != len(of):
            raise ArgumentError(f"expected {name} as {len(of)} values, given {shown(value)}")
        for each, one in zip(value, of, strict=True):
            _check_kind(name, each, one)
    elif get_origin(kind) is Literal:  # which of them the class checks
        one_of("a word or a number", str, int)(name, None if isinstance(value, bool) else value)
    elif isinstance(kind, type):
        one_of(f"a {kind.__name__}" if kind is not bool else "True or False", kind)(name, value)


def _named_as_ours(
    called: str, given: Mapping[str, Any], former: Mapping[str, str], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Keywords by the names of parameters."""
    named = {}
    for key, value in given.items():
        name = former.get(key, key)
        if key in former:
            warnings.warn(
                f"{called}: {key} is called {name} now; the former name ends with the next version", DeprecationWarning, 3
            )
        elif key not in known and key in DIFFUSERS:
            ours = DIFFUSERS[key]
            instead = f"give {ours}" if ours.partition("=")[0] in known else "leave it out"
            raise ArgumentError(f"{called} has no {key}, as diffusers has: {instead}")
        if name in named or (name != key and name in given):
            raise ArgumentError(f"{called} takes {name} once: {key} is its former name")
        named[name] = value
    return named


def shown(value: Any) -> str:
    """A value in a message: short, and with its class where that is what is wrong."""
    shown = repr(value) if isinstance(value, (str, bool, int, float, complex, type(None))) else type(value).__name__
    return shown if len(shown) <= 60 else shown[:57] + "..."
