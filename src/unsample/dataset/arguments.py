"""What Python callers give to the tasks, read before any work: numbers, names, places, or one line of what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._arguments import Reader, number, one_of, optional, shown, text, whole
from ..core.callable import can_be_called
from ..core.model import Model
from ..errors import ArgumentError
from ..methods.registry import method_text
from ..methods.starts import start_text
from ..runs.loading import Loading
from ..uses.door import read_method, read_start
from .plan import MOST

BITS = 2**63 - 1

AT_ONCE, STEPS, WORKERS = 4_096, 10_000, 100_000


def place(name: str, value: Any) -> str:
    """A folder, or an address."""
    if not isinstance(value, (str, Path)):
        raise ArgumentError(f"expected {name} as a path or an address, given {shown(value)}")
    return text(name, str(value))


def _places(name: str, value: Any) -> list[str]:
    every = [value] if isinstance(value, (str, Path)) else value
    if not isinstance(every, Sequence):
        raise ArgumentError(f"expected {name} as a path or an address, or a list of them, given {shown(value)}")
    return [place(f"each of {name}" if every is value else name, each) for each in every]


def _method(name: str, value: Any) -> str:
    """A method as people type it; `auto` stays, for it depends on other settings."""
    return value if isinstance(value, str) and read_method(name, value) else method_text(read_method(name, value))


def _start(name: str, value: Any) -> str:
    made = read_start(name, value)
    return value.strip() if isinstance(value, str) else start_text(made)


def _condition(name: str, value: Any) -> str:
    """A class or a caption, as people type them."""
    return text(name, str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _dtype(name: str, value: Any) -> str:
    return text(name, str(value).removeprefix("torch.") if type(value).__name__ == "dtype" else value)


def _on_images(name: str, value: Any) -> Any:
    if not callable(value) or not can_be_called(value, 2):
        raise ArgumentError(f"expected {name} as a function of pictures done and pictures in all, given {shown(value)}")
    return value


_yes_or_no, _name = one_of("True or False", bool), optional(text)

READERS: Mapping[str, Reader] = {
    "model": one_of("a Model, or a name or folder of one", Model, str, Path),
    "source": _places,
    "out": place,
    "engine": text,
    "shard": whole(1, MOST),
    "limit": optional(whole(1, BITS)),
    "image_column": text,
    "id_column": _name,
    "condition_column": _name,
    "latents": text,
    "psnr": _yes_or_no,
    "strict": _yes_or_no,
    "method": _method,
    "eval_at": _name,
    "steps": whole(1, STEPS),
    "spacing": _name,
    "start": _start,
    "seed": whole(-BITS, BITS),
    "guidance": number,
    "label": optional(_condition),
    "negative": optional(_condition),
    "batch_size": whole(1, AT_ONCE),
    "device": lambda name, value: text(name, str(value) if type(value).__name__ == "device" else value),
    "dtype": optional(_dtype),
    "loading": optional(one_of("a Loading", Loading)),
    "address": _name,
    "workers": optional(whole(1, WORKERS)),
    "on_images": optional(_on_images),
}
"""Argument of `invert` -> how it is read."""

SAMPLE_READERS: Mapping[str, Reader] = {
    **READERS,
    "model": optional(READERS["model"]),
    "source": place,
    "out": optional(place),
    "steps": optional(READERS["steps"]),
    "guidance": optional(number),
}
"""Of `sample`."""
