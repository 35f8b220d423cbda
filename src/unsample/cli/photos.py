"""Reading the pictures that a command is given, and saying at its end which of them were left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import ArgumentError
from .show import say

if TYPE_CHECKING:
    from ..pictures.read import Reading

LEFT_OUT = 1
"""The exit code where some pictures were left out and the rest is done."""

FEW = 8
"""Names in a line, at most."""


def is_run(place: str | Path) -> bool:
    """Whether this is the folder of a run: its manifest says which command made it."""
    from ..core.reading import read_bytes
    from ..runs.manifest import MANIFEST

    try:
        return b'"command"' in read_bytes(Path(place).expanduser() / MANIFEST)
    except (OSError, ValueError):
        return False


def refuse_runs(places: Sequence[str | Path]) -> None:
    """Refuse the folder of a run among pictures.

    Raises:
        ArgumentError: There is one.
    """
    for place in places:
        if is_run(place):
            raise ArgumentError(
                f"expected pictures, given {place}, which is a run of unsample: give the pictures that it was made of; "
                "`unsample edit` and `unsample reconstruct` take one run alone"
            )


def read_given(
    places: Sequence[str | Path], size: tuple[int, int], limit: int | None = None, *, strict: bool = False
) -> Reading:
    """The pictures; `tell` says how they were read, when nothing is left to be refused.

    Raises:
        ArgumentError: The folder of a run is among them: its pictures are results, not photographs.
        ImageError: As `unsample.pictures.read.read_all`.
    """
    from ..pictures.read import read_all

    refuse_runs(places)
    return read_all(places, size, limit, strict=strict)


def tell(reading: Reading) -> None:
    """What was converted, cropped, reduced, passed over or left out, on standard error."""
    for photo in reading.photos:
        for note in photo.notes:
            say(f"{photo.name}: {note}")
    reduced = [photo for photo in reading.photos if photo.reduced]
    if reduced:
        others = f"; and {len(reduced) - 1} more to that size" if len(reduced) > 1 else ""
        say(f"{reduced[0].name}: {reduced[0].reduced}, the model's size{others}")
    if reading.passed_over:
        others = f" and {len(reading.passed_over) - FEW} more" if len(reading.passed_over) > FEW else ""
        say(f"passed over, no pictures: {', '.join(reading.passed_over[:FEW])}{others}")
    for one in reading.rejected:
        say(f"left out: {one.reason}")


def leave(rejected: Sequence[str], done: int, what: str = "pictures") -> None:
    """Where pictures, or entries, were left out, say how many and which on the last line, and leave with code 1."""
    if not rejected:
        return
    names = ", ".join(rejected[:FEW])
    more = ", ..." if len(rejected) > FEW else ""
    say(f"unsample: {len(rejected)} of {len(rejected) + done} {what} left out, the rest is done: {names}{more}")
    raise typer.Exit(LEFT_OUT)
