"""Options that commands share: each a type, with its name, its help, and the values that it can have.

What is typed is checked before a model is loaded: numbers against their limits, paths, methods and starts by reading them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.reading import number_of, whole_of
from ..errors import ArgumentError
from ..methods import registry
from ..methods.starts import parse_start

DEFAULT, PAPER = ({"--method": typed.method, "--start": typed.forward} for typed in (registry.DEFAULT, registry.PAPER))

CONDITION = ("--label", "--prompt", "--condition")

IN_MEMORY = 100_000, "all are held in memory"
BUDGET = 1_000, "every number of steps that it allows is tried"
TRAINED = 10_000, "no schedule is trained on more timesteps"
AT_ONCE = 4_096, "a network call holds all of them in memory"
BITS = 2**63 - 1, "64 bits"


def read_first(check: Callable[[Any], object]) -> Callable[[Any], Any]:
    """A callback of an option, whose value is refused by `check` before any work."""

    def callback(value: Any) -> Any:
        if value is not None:
            check(value)
        return value

    return callback


def whole(limit: tuple[int, str], name: str, *names: str, help: str, least: int = 1) -> Any:
    """An option that is a whole number up to a limit, which has a reason."""
    most, reason = limit

    def check(value: int) -> None:
        if not least <= value <= most:
            raise ArgumentError(f"{name}: expected a whole number from {least} to {most:,} ({reason}), given {value}")

    return typer.Option(name, *names, help=help, callback=read_first(check), parser=_read_by(whole_of), metavar="<int>")


def number(least: float, most: float, name: str, *names: str, help: str) -> Any:
    """An option that is a number in a range."""

    def check(value: float) -> None:
        if not (math.isfinite(value) and least <= value <= most):
            raise ArgumentError(f"{name}: expected a number from {least:g} to {most:g}, given {value}")

    return typer.Option(name, *names, help=help, callback=read_first(check), parser=_read_by(number_of), metavar="<float>")


def _read_by(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """A parser of an option; its default is a number already."""
    return lambda value: parse(value) if isinstance(value, str) else value


def _place_of(text: str) -> Path:
    if not text.strip():
        raise ValueError(f"expected a path, given {text!r}")  # which Path takes for the current folder
    return Path(text)


def place(metavar: str = "<path>") -> dict[str, Any]:
    """What options and arguments that are a path are made with."""
    return {"parser": _read_by(_place_of), "metavar": metavar}


def check_text(text: str) -> None:
    """Refuse an empty text where one names something."""
    if not text.strip():
        raise ArgumentError(f"expected a name, given {text!r}")


NAMED = read_first(check_text)


def check_places(places: Sequence[str]) -> None:
    """Refuse places without pictures; a run directory holds its own.

    Raises:
        ImageError: As `find_photos`.
    """
    from ..core.files import expanded
    from ..pictures.find import find_photos

    if not (len(places) == 1 and (expanded(places[0]) / "manifest.json").is_file()):
        find_photos(places)


def check_method(text: str) -> None:
    """Refuse what is no method."""
    registry.parse_method(text)


def check_methods(text: str) -> None:
    """Refuse names of which one is no method; commas inside brackets belong to a value."""
    for one in re.split(r",(?![^(]*\))", text) if text != "all" else ():
        registry.parse_method(one)


def check_start(text: str) -> None:
    """Refuse what is no start, or several with commas between."""
    for one in text.split(","):
        parse_start(one)


def check_one_start(text: str) -> None:
    """Refuse what is no start."""
    parse_start(text)


Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...", help="Pictures, folders, globs, or parquet files of pictures.", callback=read_first(check_places)
    ),
]
Limit = Annotated[int | None, whole(BITS, "--limit", help="At most so many pictures.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop at the first picture that cannot be read; else it is left out, and the exit code is 1."
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A name of `unsample models`, a diffusers directory, a checkpoint file, or a hub name.",
        show_default="tiny-imagenet-32-v",
        callback=NAMED,
    ),
]
ImageSize = Annotated[
    str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Of the pictures, like 512x768; default: the model's own.")
]
Revision = Annotated[str | None, typer.Option(callback=NAMED, help="Commit or tag of a hub name.")]
Variant = Annotated[str | None, typer.Option(callback=NAMED, help="fp16 reads the weights that are saved under that name.")]
Offload = Annotated[bool, typer.Option("--offload", help="On the device only the network that is at work.")]
Tiling = Annotated[bool, typer.Option("--tiling", help="The autoencoder works through large pictures in tiles.")]
Method = Annotated[
    str,
    typer.Option(
        help="auto, or a name of `unsample methods`, with options: fixed-point:iterations=3 ...",
        callback=read_first(check_method),
    ),
]
EvalAtOption = Annotated[
    str | None, typer.Option("--eval-at", help="The level the network is given on the way up: target (default) or source.")
]
Steps = Annotated[int, whole(TRAINED, "--steps", help="Moves from one end of the grid to the other.")]
SpacingOption = Annotated[
    str | None,
    typer.Option("--spacing", help="trailing, linspace, karras, log-snr, trdi, leading:offset=3 ...; default: the model's."),
]
Start = Annotated[
    str,
    typer.Option(
        "--start",
        help="Forward start: 0 (plain inversion), 2 (moves), 4% (of 50), sigma=0.1, auto (as much as each picture needs); "
        "several with commas, side by side.",
        callback=read_first(check_start),
    ),
]
Seed = Annotated[int, whole(BITS, "--seed", help="Noise is drawn from the seed and each picture's content.", least=-BITS[0])]
Guidance = Annotated[float, number(-1000, 1000, "--guidance", help="w in eps_u + w (eps_c - eps_u); 1 is conditional only.")]
Strength = Annotated[
    float, number(0, 1, "--strength", help="Share of the moves that is walked, 0 to 1; less stays closer to the picture.")
]
Label = Annotated[
    str | None,
    typer.Option(*CONDITION, help="Class name or index, or what the picture shows; by default unconditional."),
]
Negative = Annotated[
    str | None, typer.Option(help="Class or prompt that guidance moves away from, in place of the unconditional.")
]
BatchSize = Annotated[int, whole(AT_ONCE, "--batch-size", help="Pictures per network call.")]
Device = Annotated[str, typer.Option(callback=NAMED, help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[
    str | None,
    typer.Option(callback=NAMED, help="Precision of the network: float32, bfloat16, float16.", show_default="float32"),
]
KeepOption = Annotated[str, typer.Option("--keep", help="Also keep the way up: latent (no), states, eps, or all.")]
Out = Annotated[
    Path | None, typer.Option("--out", **place(), help="Run directory; by default named after the settings, in runs/.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
