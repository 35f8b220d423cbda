"""What callers write for an argument: other names of it, numbers of other libraries, and values that it cannot have.

`takes` wraps a public function: it reads each given argument by the reader of that name, accepts former names with a warning,
says ours to callers who write those of other libraries, and warns of arguments that do nothing beside the others.
"""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple, ParamSpec, TypeVar

from .errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")

Reader = Callable[[str, Any], Any]
"""(name of the argument, what was given) -> the value."""

ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("guidance_scale", "true_cfg_scale", "cfg_scale", "edit_guidance_scale"), ("guidance",)),
    **dict.fromkeys(("num_inference_steps", "num_inversion_steps", "num_steps", "ddim_steps"), ("steps",)),
    **dict.fromkeys(("timesteps", "sigmas"), ("grid",)),
    "eta": ("sampler=Ancestral(eta), of unsample.methods.stochastic", "method=Ancestral(eta), of unsample.methods.stochastic"),
    "generator": ("seed",),
    **dict.fromkeys(("negative_prompt", "negative_prompt_embeds", "uncond"), ("negative",)),
    **dict.fromkeys(("source_prompt", "source_embeds"), ("source",)),
    **dict.fromkeys(("target_prompt", "target_embeds", "editing_prompt", "condition", "prompt"), ("to",)),
    **dict.fromkeys(("class_labels", "class_label", "label", "labels", "prompt_embeds"), ("condition", "to")),
    "image": ("images",),
    "latents": ("latent", "images"),
    "mask_image": ("mask",),
    "num_maps_per_mask": ("draws",),
    "num_images_per_prompt": ("seeds", "count"),
    "inpaint_strength": ("strength",),
    **dict.fromkeys(("height", "width", "resolution"), ("size=(height, width)",)),
    **dict.fromkeys(("callback_on_step_end", "callback", "callback_steps"), ("on_step",)),
    **dict.fromkeys(("pretrained_model_name_or_path", "model_id"), ("source",)),
    "torch_dtype": ("dtype",),
    **dict.fromkeys(("device_map", "torch_device"), ("device",)),
    **dict.fromkeys(
        ("output_type", "return_dict", "cross_attention_kwargs", "joint_attention_kwargs", "guidance_rescale", "clip_skip"), ()
    ),
    **dict.fromkeys(("use_safetensors", "safety_checker", "low_cpu_mem_usage", "subfolder", "cache_dir", "token"), ()),
}
"""What diffusers and others call it -> what it is called here, the first that a function has."""

PASSED = frozenset(("unsample", "contextlib", "functools", "diffusers", "torch", "jaxtyping", "beartype"))
"""Packages between the caller's line and what warns."""


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


def several(reader: Reader) -> Reader:
    """A reader of lists, tuples, arrays and tensors, by a reader of each of their values; what it returns is a list."""

    def read(name: str, value: Any) -> list[Any]:
        if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping, set)):
            raise ArgumentError(f"expected {name} as a list, given {shown(value)}")
        return [reader(f"each of {name}", each.item() if callable(getattr(each, "item", None)) else each) for each in value]

    return read


def sides(name: str, value: Any) -> tuple[int, int]:
    """Reads height and width in pixels."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentError(f"expected {name} as (height, width) in pixels, given {shown(value)}")
    height, width = (whole(1)(name, side) for side in value)
    return height, width


class Idle(NamedTuple):
    """Arguments that do nothing beside certain others.

    Attributes:
        names: Theirs.
        when: Of all arguments, as attributes: whether these do nothing.
        why: The end of "has no effect ...".
    """

    names: tuple[str, ...]
    when: Callable[[Any], bool]
    why: str


def warn(message: str, kind: type[Warning] = UserWarning) -> None:
    """A warning that points at the line which called this package, be it through another library."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _package(frame) in PASSED:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, kind, stacklevel=level)


def _is_ours(frame: FrameType | None) -> bool:
    """Whether a call, perhaps one with types checked at run time, is from within this package."""
    while frame is not None and _package(frame) in ("jaxtyping", "beartype"):
        frame = frame.f_back
    return frame is not None and _package(frame) == __name__.partition(".")[0]


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def takes(
    readers: Mapping[str, Reader], idle: Sequence[Idle] = (), /, **former: str
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of a public function that reads its arguments.

    Args:
        readers: Of each parameter; those without are left as they are, and so are defaults.
        idle: Arguments other than the default that callers from outside are warned of, for they do nothing.
        former: Former name of a parameter -> its name. It is taken for one version, with a `DeprecationWarning`.

    >>> @takes({"steps": whole(1)}, count="steps")
    ... def walk(steps=50):
    ...     return steps
    >>> walk(num_inference_steps=20)
    Traceback (most recent call last):
    unsample.errors.ArgumentError: walk() has no num_inference_steps: give steps
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
            if idle and not _is_ours(sys._getframe(1)):
                _warn_of_idle(called, bound, idle)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _warn_of_idle(called: str, bound: inspect.BoundArguments, idle: Sequence[Idle]) -> None:
    """Warn of given arguments that do nothing, unless they say what the default says."""
    usual = {name: parameter.default for name, parameter in bound.signature.parameters.items()}
    every = SimpleNamespace(**{**usual, **bound.arguments})

    def is_given(name: str) -> bool:
        value, default = bound.arguments.get(name, usual[name]), usual[name]
        return value is not default and (default is None or value is None or bool(value != default))

    for names, when, why in idle:
        unused = [name for name in names if name in usual and is_given(name)]
        if unused and when(every):
            has, them = ("has", "it") if len(unused) == 1 else ("have", "them")
            warn(f"{called}: {' and '.join(unused)} {has} no effect {why}; leave {them} out")


def _named_as_ours(
    called: str, given: Mapping[str, Any], former: Mapping[str, str], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Keywords by the names of parameters."""
    named = {}
    for key, value in given.items():
        name = former.get(key, key)
        if key in former:
            warn(f"{called}: {key} is called {name} now; the former name ends with the next version", DeprecationWarning)
        elif key not in known and key in ELSEWHERE:
            ours = next((each for each in ELSEWHERE[key] if each.partition("=")[0] in known), None)
            raise ArgumentError(f"{called} has no {key}: {f'give {ours}' if ours else 'leave it out'}")
        elif key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"{called}: got an unexpected keyword argument {key!r}{meant}")
        if name in named or (name != key and name in given):
            raise ArgumentError(f"{called} takes {name} once: {key} is its former name")
        named[name] = value
    return named


def shown(value: Any) -> str:
    """A value in a message: short, and with its class where that is what is wrong."""
    shown = repr(value) if isinstance(value, (str, bool, int, float, complex, type(None))) else type(value).__name__
    return shown if len(shown) <= 60 else shown[:57] + "..."
