"""The command that shows what lies between pictures."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ..errors import ArgumentError, counted
from ..runs.progress import progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    DEFAULT,
    IN_MEMORY,
    AsJson,
    BatchSize,
    Guidance,
    Label,
    Method,
    Out,
    Photos,
    Seed,
    SpacingOption,
    Steps,
    check_start,
    read_first,
    whole,
)
from .photos import read_given, tell
from .show import print_summary, show_run

NONE, FRAMES = "none", 9

FramesOption = Annotated[
    int | None,
    whole(IN_MEMORY, "--frames", help=f"Pictures of the whole way, the given ones among them; default {FRAMES}.", least=2),
]
Path = Annotated[str, typer.Option("--path", help="slerp (an arc), lerp (a line), or norm (the line, as long as the arc).")]
GridOption = Annotated[
    str | None, typer.Option("--grid", metavar="ROWSxCOLUMNS", help="A grid with four pictures in its corners, like 5x5.")
]
Start = Annotated[
    str,
    typer.Option(
        help="Forward start of the inversions: 0 (plain), 2 (moves), 4% (of 50), sigma=0.1, auto.",
        callback=read_first(check_start),
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(help="A class or prompt for each picture, with semicolons between; on the way their embeddings mix."),
]
Animation = Annotated[str, typer.Option(help="Also a moving picture: gif, mp4 (needs ffmpeg, or unsample[video]), or none.")]


@loads_a_model
def interpolate(
    paths: Photos,
    chosen: Chosen,
    frames: FramesOption = None,
    path: Path = "slerp",
    grid: GridOption = None,
    method: Method = DEFAULT["--method"],
    steps: Steps = 50,
    spacing: SpacingOption = None,
    start: Start = DEFAULT["--start"],
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    labels: Labels = None,
    batch_size: BatchSize = 16,
    animation: Animation = "gif",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Turn photographs into noise, and sample what lies between: a strip, its frames, and a moving picture."""
    from .. import pictures as plotting
    from ..runs.interpolate import Interpolation
    from ..runs.names import place_of
    from ..runs.settings import InvertSettings

    moving = None if animation == NONE else animation
    if moving:
        plotting.check_animation(moving)
    spread = _spread(frames, grid)
    model = chosen.load()
    reading = read_given(paths, model.image_size, strict=True)  # each has its place on the way
    photos = reading.photos
    shared: dict[str, Any] = {"method": method, "steps": steps, "spacing": spacing, "forward": (start.strip(),)}
    shared |= {"seed": seed, "guidance": guidance, "batch_size": batch_size, **chosen.recorded}
    settings = [InvertSettings.of(model, label=one, **shared) for one in _labels(label, labels, len(photos))]
    job = Interpolation(model, photos, settings, spread, path)
    job.check()
    tell(reading)
    place = place_of(out, "interpolate", job.key, *(photo.id for photo in photos))
    run = job.run(place)
    with progress_bar("drawing the frames"):
        job.draw(run, moving)
    if not as_json:
        print_summary(run)
    show_run(run, "strip.png", as_json)


def _spread(frames: int | None, grid: str | None) -> int | tuple[int, int]:
    """Frames of a way, or rows and columns of a grid, as people type them.

    >>> _spread(None, None), _spread(None, "5x7")
    (9, (5, 7))
    """
    if grid is None:
        return FRAMES if frames is None else frames
    if frames is not None:
        raise ArgumentError("--grid says how many frames there are: leave out --frames, or --grid")
    sides = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", grid.strip())
    if sides is None:
        raise ArgumentError(f"--grid: expected ROWSxCOLUMNS, like 5x5, given {grid!r}")
    return int(sides[1]), int(sides[2])


def _labels(label: str | None, labels: str | None, count: int) -> list[str | None]:
    """The label of each picture."""
    if labels is None:
        return [label] * count
    if label is not None:
        raise ArgumentError("--labels are those of the pictures one by one: leave out --label, or --labels")
    each = [text.strip() for text in labels.split(";")]
    if len(each) != count:
        raise ArgumentError(
            f"--labels: expected one per picture, semicolons between, given {counted(count, 'picture')}, "
            f"{counted(len(each), 'label')}"
        )
    return [None if text == NONE else text for text in each]
