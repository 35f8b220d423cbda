"""The commands that invert pictures, and the one that diagnoses what came out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ArgumentError, counted
from ..runs.progress import progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    DEFAULT,
    PAPER,
    AsJson,
    BatchSize,
    EvalAtOption,
    Guidance,
    KeepOption,
    Label,
    Limit,
    Method,
    Out,
    Photos,
    Seed,
    SpacingOption,
    Start,
    Steps,
    Strict,
    place,
)
from .photos import leave, read_given, tell
from .show import print_json, print_table, show_run


@loads_a_model
def invert(
    paths: Photos,
    chosen: Chosen,
    method: Method = DEFAULT["--method"],
    eval_at: EvalAtOption = None,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    start: Start = DEFAULT["--start"],
    paper: Annotated[bool, typer.Option("--paper", help="The paper's setting: --method ddim --start 4%.")] = False,
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    batch_size: BatchSize = 16,
    keep: KeepOption = "latent",
    limit: Limit = None,
    strict: Strict = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Turn photographs into noise, sample them back, and show how noise-like the noise is."""
    if paper:
        _refuse_beside_paper({"--method": method, "--start": start})
        method, start = PAPER.values()
    settings: dict[str, Any] = {"method": method, "eval_at": eval_at, "steps": steps, "spacing": spacing}
    settings |= {"seed": seed, "guidance": guidance, "label": label, "batch_size": batch_size, "keep": keep}
    _invert(paths, limit, strict, out, as_json, chosen, start, **settings)


@loads_a_model
def demo(
    chosen: Chosen,
    steps: Steps = 50,
    start: Start = "0,2",
    seed: Seed = 0,
    label: Label = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The shipped photographs, with and without the forward start."""
    from ..pictures import read as io

    _invert(io.demo_photos(), None, True, out, as_json, chosen, start, method="ddim", steps=steps, seed=seed, label=label)


def diagnose(
    run: Annotated[Path, typer.Argument(**place("RUN"), help="A run directory of `unsample invert`.")], as_json: AsJson = False
) -> None:
    """The latents of a run against true noise."""
    from ..diagnostics.row import no_intervals, outside_noise
    from ..runs import report as results
    from ..runs.directory import Run

    opened = Run.load(run)
    diagnoses = results.diagnose_run(opened)
    if as_json:
        print_json({name: diagnosis.to_dict() for name, diagnosis in diagnoses.items()})
    else:
        print_table(results.table_of(opened, diagnoses))
        for line in (*no_intervals(len(opened.manifest.items)), *results.summary(opened), *outside_noise(diagnoses)):
            print(line)


def _invert(
    places: Sequence[str | Path],
    limit: int | None,
    strict: bool,
    out: Path | None,
    as_json: bool,
    chosen: Chosen,
    start: str,
    **settings: Any,
) -> None:
    from ..diagnostics.row import no_intervals, outside_noise
    from ..runs.invert import invert_photos
    from ..runs.names import place_of
    from ..runs.report import sentences, summary, table_of
    from ..runs.settings import InvertSettings

    model = chosen.load()
    starts = tuple(text.strip() for text in start.split(","))
    checked = InvertSettings.of(model, forward=starts, **chosen.recorded, **settings)
    reading = read_given(places, model.image_size, limit, strict=strict)
    tell(reading)
    photos = reading.photos
    place = place_of(out, "invert", checked.key, *(photo.id for photo in photos))
    with progress_bar(f"inverting {counted(len(photos), 'picture')}") as on_step:
        run, diagnoses = invert_photos(model, photos, checked, place, on_step, reading.rejected)
    if not as_json:
        print_table(table_of(run, diagnoses))
        for sentence in (*no_intervals(len(photos)), *summary(run), *sentences(diagnoses), *outside_noise(diagnoses)):
            print(sentence)
    show_run(run, "report.html", as_json)
    leave(reading.left_out, len(photos))


def _refuse_beside_paper(given: dict[str, str]) -> None:
    """--paper is a method and a start; others beside it would be passed over, and are refused."""
    others = [option for option, value in given.items() if value != DEFAULT[option]]
    if others:
        paper = " ".join(f"{option} {value}" for option, value in PAPER.items())
        raise ArgumentError(f"--paper stands for {paper}; leave out {' and '.join(others)}, or --paper")
