"""Which model a command works on and how it is loaded: eight options, in one place.

A command with a parameter `chosen: Chosen`, marked by `loads_a_model`, has the options in its place.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from ..core.files import expanded
from ..errors import ArgumentError, shortened
from .options import Device, Dtype, ImageSize, ModelName, Offload, Revision, Tiling, Variant

if TYPE_CHECKING:
    from ..core.model import Model
    from ..runs.loading import Loading
    from ..runs.manifest import Origin

MODEL = "tiny-imagenet-32-v"


@dataclass(frozen=True)
class Chosen:
    """A model and how it is loaded, as typed; what is None has its default, or is that of a run."""

    model: ModelName = None
    size: ImageSize = None
    revision: Revision = None
    variant: Variant = None
    device: Device = "auto"
    dtype: Dtype = None
    offload: Offload = False
    tiling: Tiling = False

    def load(self) -> Model:
        """The model."""
        return self.loaded(self.origin)

    def loaded(self, origin: Origin, dtype: str = "float32") -> Model:
        """The model of `origin`, with the device, precision and memory chosen here; `dtype` if no precision is."""
        return self.loading(origin, dtype).load()

    def loading(self, origin: Origin, dtype: str = "float32") -> Loading:
        """How `loaded` does it, for who does it elsewhere."""
        from ..runs.loading import Loading

        return Loading(origin, self.device, self.dtype or dtype, self.offload, self.tiling)

    @property
    def of_a_model(self) -> list[str]:
        """The options typed that say what is computed, which a run has of its own."""
        names = ("size", "dtype")
        return [
            f"--{field.name}" for field in fields(self) if field.name in names and getattr(self, field.name) != field.default
        ]

    @property
    def recorded(self) -> dict[str, Any]:
        """Settings of every run of this model."""
        return {"dtype": self.dtype or "float32", "origin": self.origin}

    def moved(self, origin: Origin) -> Origin:
        """Where the model of a run is now: where it was, or where it is said to be here.

        Raises:
            ArgumentError: A size or a precision: a run has its own.
        """
        own = [option for option, value in (("--size", self.size), ("--dtype", self.dtype)) if value is not None]
        if own:
            raise ArgumentError(f"a run has its own size and precision: leave out {' and '.join(own)}")
        given = {name: value for name in ("revision", "variant") if (value := getattr(self, name)) is not None}
        if self.model is not None:
            given = {"revision": None, "source": self.origin.source, **given}
        return origin.model_copy(update=given)

    @property
    def origin(self) -> Origin:
        """Where the model comes from, for a manifest: a path is made absolute, a name stays a name."""
        from ..models import cards
        from ..runs.manifest import Origin

        name = MODEL if self.model is None else self.model
        path = expanded(name)
        source = str(path.resolve()) if name not in cards() and path.exists() else name
        return Origin(source=source, size=size_of(self.size), revision=self.revision, variant=self.variant)


def size_of(text: str | None) -> tuple[int, int] | None:
    """Height and width, as people type them.

    >>> size_of("512x768")
    (512, 768)
    """
    if text is None:
        return None
    sides = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text.strip())
    if sides is None:
        raise ArgumentError(f"--size: expected HEIGHTxWIDTH in pixels, like 512x768, given {shortened(repr(text))}")
    return int(sides[1]), int(sides[2])


def loads_a_model(command: Callable[..., None]) -> Callable[..., None]:
    """`command`, with the fields of `Chosen` as options in the place of its parameter `chosen`.

    Where a command has a size of its own, as experiments have, that of the pictures is called --image-size.
    """
    taken = inspect.signature(command).parameters
    own, shared = get_type_hints(command, include_extras=True), get_type_hints(Chosen, include_extras=True)
    called = {field.name: "image_size" if field.name == "size" and "size" in taken else field.name for field in fields(Chosen)}

    @functools.wraps(command)
    def typed(**given: Any) -> None:
        command(chosen=Chosen(**{name: given.pop(option) for name, option in called.items()}), **given)

    parameters = []
    for name, parameter in taken.items():
        if name == "chosen":
            parameters += [_option(called[field.name], shared[field.name], field.default) for field in fields(Chosen)]
        else:
            parameters.append(_option(name, own[name], parameter.default))
    typed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    typed.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return typed


def _option(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
