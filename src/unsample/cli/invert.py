"""Commands that make a run directory, or read one."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ArgumentError, RunError
from ..methods import registry
from ..runs.progress import progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    AsJson,
    BatchSize,
    Device,
    EvalAtOption,
    Forward,
    Guidance,
    KeepOption,
    Label,
    Limit,
    Method,
    Negative,
    Offload,
    Out,
    Photos,
    Seed,
    SpacingOption,
    Steps,
    Tiling,
)
from .show import print_json, print_table, tell

__all__ = ["demo", "diagnose", "invert", "reconstruct", "sample"]

DEFAULT, PAPER = ({"--method": typed.method, "--forward": typed.forward} for typed in (registry.DEFAULT, registry.PAPER))


@loads_a_model
def invert(
    paths: Photos,
    chosen: Chosen,
    method: Method = DEFAULT["--method"],
    eval_at: EvalAtOption = None,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    forward: Forward = DEFAULT["--forward"],
    paper: Annotated[bool, typer.Option("--paper", help="The paper's setting: --method ddim --forward 4%.")] = False,
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    batch_size: BatchSize = 16,
    keep: KeepOption = "latent",
    limit: Limit = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Turn photographs into noise, sample them back, and show how noise-like the noise is."""
    asked = {"--method": method, "--forward": forward}
    way = _paper(asked) if paper else asked
    _invert(
        paths,
        limit,
        out,
        as_json,
        chosen,
        method=way["--method"],
        eval_at=eval_at,
        steps=steps,
        spacing=spacing,
        forward=_starts(way["--forward"]),
        seed=seed,
        guidance=guidance,
        label=label,
        batch_size=batch_size,
        keep=keep,
    )


@loads_a_model
def demo(
    chosen: Chosen,
    steps: Steps = 50,
    forward: Forward = "0,2",
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The shipped photographs, with and without the forward start."""
    from ..pictures import read as io

    _invert(
        io.demo_photos(),
        None,
        out,
        as_json,
        chosen,
        method="ddim",
        steps=steps,
        forward=_starts(forward),
        seed=seed,
    )


@loads_a_model
def sample(
    chosen: Chosen,
    count: Annotated[int, typer.Option(help="How many pictures.")] = 16,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    negative: Negative = None,
    batch_size: BatchSize = 16,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Pictures from true noise."""
    from ..runs import invert as jobs
    from ..runs.settings import SampleSettings

    loaded = chosen.load()
    settings = SampleSettings.of(
        loaded,
        count=count,
        steps=steps,
        spacing=spacing,
        seed=seed,
        guidance=guidance,
        label=label,
        negative=negative,
        batch_size=batch_size,
        dtype=chosen.dtype,
        origin=chosen.origin,
    )
    with progress_bar("sampling") as on_step:
        run = jobs.sample_images(loaded, settings, place_of(out, "sample", settings), on_step)
    tell(run.path, as_json, run.manifest.model_dump(), "overview.png")


def reconstruct(
    run: Annotated[Path, typer.Argument(help="A run directory of `unsample invert`.")],
    forward: Annotated[str | None, typer.Option(help="Which of the run's starts; default is its last.")] = None,
    steps: Annotated[int | None, typer.Option(help="Moves down; default is as many as went up.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Default is the run's.")] = None,
    label: Annotated[
        str | None, typer.Option("--label", "--prompt", help="Default is the run's; `none` for unconditional.")
    ] = None,
    negative: Negative = None,
    batch_size: BatchSize = 16,
    model: Annotated[str | None, typer.Option(help="Where the run's model is now, if it was moved.")] = None,
    device: Device = "auto",
    offload: Offload = False,
    tiling: Tiling = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Sample the pictures back from the latents of a run, with its settings or others.

    What the method stored besides the latents is used, unless --steps asks for another grid.
    """
    from ..core.trajectory import Stored
    from ..runs import invert as jobs
    from ..runs.directory import Origin, Run
    from ..runs.report import starts_of, way_back
    from ..runs.settings import SampleSettings

    source = Run.load(run)
    starts = starts_of(source)
    start = starts[-1] if forward is None else forward
    if start not in starts:
        raise ArgumentError(f"--forward: the run in {run} has the starts {', '.join(starts)}, not {start}")
    tensors = source.tensors()
    latents = tensors[f"latent.{start}"]
    made: Any = source.manifest.settings
    origin = source.manifest.origin or Origin(source=made["model"])
    chosen = Chosen(model or origin.source, device=device, dtype=made["dtype"], offload=offload, tiling=tiling)
    if model is not None:
        origin = origin.model_copy(update={"source": chosen.origin.source, "revision": None})
    loaded = chosen.loaded(origin)
    if loaded.digest != made["model_digest"]:
        raise RunError(f"the run in {run} was made with other weights of {made['model']!r}; invert again with these")
    moves = steps or made["steps"]
    method, stored = way_back(source, tensors, start) if moves == made["steps"] else (None, Stored())
    settings = SampleSettings.of(
        loaded,
        count=len(latents),
        steps=moves,
        spacing=made["spacing"],
        guidance=made["guidance"] if guidance is None else guidance,
        label=made["label"] if label is None else None if label == "none" else label,
        negative=negative,
        seed=made["seed"],
        batch_size=batch_size,
        dtype=made["dtype"],
        origin=origin,
        method=method,
        source=f"{start} of {short_hash(source.manifest.model_dump_json(include={'settings', 'items'}))}",
    )
    names = [item.name for item in source.manifest.items]
    with progress_bar("sampling back") as on_step:
        place = place_of(out, "reconstruct", settings)
        done = jobs.sample_images(loaded, settings, place, on_step, latents, names, stored)
    tell(done.path, as_json, done.manifest.model_dump(), "overview.png")


def diagnose(
    run: Annotated[Path, typer.Argument(help="A run directory of `unsample invert`.")], as_json: AsJson = False
) -> None:
    """The latents of a run against true noise."""
    from ..runs import report as results
    from ..runs.directory import Run

    opened = Run.load(run)
    diagnoses = results.diagnose_run(opened)
    if as_json:
        print_json({name: diagnosis.to_dict() for name, diagnosis in diagnoses.items()})
    else:
        print_table(results.table_of(opened, diagnoses))


def _invert(
    places: Sequence[str | Path], limit: int | None, out: Path | None, as_json: bool, chosen: Chosen, **settings: Any
) -> None:
    from ..pictures import read as io
    from ..runs import invert as jobs
    from ..runs.html import sentences
    from ..runs.report import table_of
    from ..runs.settings import InvertSettings

    loaded = chosen.load()
    checked = InvertSettings.of(loaded, dtype=chosen.dtype, origin=chosen.origin, **settings)
    photos = io.read_photos(places, loaded.image_size, limit)
    for photo in photos:
        for note in photo.notes:
            print(f"{photo.name}: {note}", file=sys.stderr)
    place = place_of(out, "invert", checked, *(photo.id for photo in photos))
    with progress_bar(f"inverting {len(photos)} pictures") as on_step:
        run, diagnoses = jobs.invert_photos(loaded, photos, checked, place, on_step)
    if not as_json:
        print_table(table_of(run, diagnoses))
        for sentence in sentences(diagnoses):
            print(sentence)
    tell(run.path, as_json, run.manifest.model_dump(), "report.html")


def _paper(asked: dict[str, str]) -> dict[str, str]:
    """The paper's method and start; others beside it would be passed over, and are refused."""
    others = [option for option, value in asked.items() if value != DEFAULT[option]]
    if others:
        paper = " ".join(f"{option} {value}" for option, value in PAPER.items())
        raise ArgumentError(f"--paper stands for {paper}; leave out {' and '.join(others)}, or --paper")
    return PAPER


def _starts(forward: str) -> tuple[str, ...]:
    return tuple(text.strip() for text in forward.split(","))


def place_of(out: Path | None, command: str, settings: Any, *more: str) -> Path:
    """Where a run goes: as asked, or a folder whose name follows from what it is, so that a rerun finds it."""
    return out or Path("runs") / f"{command}-{short_hash(settings.model_dump_json(), *more)}"


def short_hash(*parts: str) -> str:
    """A name for what these texts say, 8 hexadecimal digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
