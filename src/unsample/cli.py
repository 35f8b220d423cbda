"""The command line. It parses, calls `jobs`, and shows; there is no science in it.

Every error on purpose is one line on standard error and exit code 2. Ctrl-C leaves with 130 and keeps what was finished; the
same command goes on from there. With --json, standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .errors import ArgumentError, RunError, UnsampleError
from .progress import progress_bar

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Undo a diffusion model's sampling: turn images back into noise that is really noise.",
)

Photos = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="Pictures, folders, globs, or parquet files of pictures.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")]
ModelName = Annotated[str, typer.Option("--model", help="A name of `unsample models`, a diffusers directory, or a hub name.")]
Method = Annotated[str, typer.Option(help="How a move up is made, with options: ddim, fixed-point:iterations=3 ...")]
EvalAtOption = Annotated[
    str | None, typer.Option("--eval-at", help="The level the network is told on the way up: target (default) or source.")
]
Steps = Annotated[int, typer.Option(help="Moves from one end of the grid to the other.")]
SpacingOption = Annotated[
    str | None,
    typer.Option("--spacing", help="leading, trailing, linspace, trdi, karras, log-snr; default: the model's own."),
]
Forward = Annotated[
    str,
    typer.Option(help="Forward start: 0 (plain inversion), 2, 4%, sigma=0.1; several with commas, side by side."),
]
Seed = Annotated[int, typer.Option(help="Noise is drawn from the seed and each picture's content.")]
Guidance = Annotated[float, typer.Option(help="w in eps_u + w (eps_c - eps_u); 1 is conditional only.")]
Label = Annotated[str | None, typer.Option(help="Class name or index; none is unconditional.")]
Negative = Annotated[
    str | None, typer.Option(help="Class that guidance moves away from, in place of the unconditional; name or index.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Pictures per network call.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str, typer.Option(help="Precision of the network: float32, bfloat16, float16.")]
KeepOption = Annotated[str, typer.Option("--keep", help="Also keep the way up: latent (no), states, eps, or all.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run directory; by default named after the settings, in runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command()
def invert(
    paths: Photos,
    model: ModelName = "tiny-imagenet-32",
    method: Method = "ddim",
    eval_at: EvalAtOption = None,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    forward: Forward = "4%",
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    dtype: Dtype = "float32",
    keep: KeepOption = "latent",
    limit: Limit = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Turn photographs into noise, sample them back, and show how noise-like the noise is."""
    _invert(
        paths,
        limit,
        out,
        as_json,
        load={"name": model, "device": device, "dtype": dtype},
        method=method,
        eval_at=eval_at,
        steps=steps,
        spacing=spacing,
        forward=_starts(forward),
        seed=seed,
        guidance=guidance,
        label=label,
        batch_size=batch_size,
        dtype=dtype,
        keep=keep,
    )


@app.command()
def demo(
    steps: Steps = 50,
    forward: Forward = "0,2",
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """The shipped photographs, with and without the forward start."""
    from . import io

    _invert(
        io.demo_photos(),
        None,
        out,
        as_json,
        load={},
        steps=steps,
        forward=_starts(forward),
        seed=seed,
    )


@app.command()
def sample(
    model: ModelName = "tiny-imagenet-32",
    count: Annotated[int, typer.Option(help="How many pictures.")] = 16,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    seed: Seed = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    negative: Negative = None,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    dtype: Dtype = "float32",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Pictures from true noise."""
    from . import jobs, models
    from .settings import SampleSettings

    loaded = models.load(model, device=device, dtype=dtype)
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
        dtype=dtype,
    )
    with progress_bar("sampling") as on_step:
        run = jobs.sample_images(loaded, settings, _place(out, "sample", settings), on_step)
    _tell(run.path, as_json, run.manifest.model_dump(), "overview.png")


@app.command()
def reconstruct(
    run: Annotated[Path, typer.Argument(help="A run directory of `unsample invert`.")],
    forward: Annotated[str | None, typer.Option(help="Which of the run's starts; default is its last.")] = None,
    steps: Annotated[int | None, typer.Option(help="Moves down; default is as many as went up.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Default is the run's.")] = None,
    label: Annotated[str | None, typer.Option(help="Default is the run's; `none` for unconditional.")] = None,
    negative: Negative = None,
    batch_size: BatchSize = 16,
    device: Device = "auto",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Sample the pictures back from the latents of a run, with its settings or others.

    What the method stored besides the latents is used, unless --steps asks for another grid.
    """
    from . import jobs, models
    from .methods import sampler_of
    from .settings import InvertSettings, SampleSettings
    from .steppers import DDIM
    from .store import Run
    from .stored import Stored

    source = Run.load(run)
    starts = jobs.starts_of(source)
    start = starts[-1] if forward is None else forward
    if start not in starts:
        raise ArgumentError(f"--forward: the run in {run} has the starts {', '.join(starts)}, not {start}")
    tensors = source.tensors()
    latents = tensors[f"latent.{start}"]
    made: Any = source.manifest.settings
    loaded = models.load(made["model"], device=device, dtype=made["dtype"])
    if loaded.digest != made["model_digest"]:
        raise RunError(f"the run in {run} was made with other weights of {made['model']!r}; invert again with these")
    settings = SampleSettings.of(
        loaded,
        count=len(latents),
        steps=steps or made["steps"],
        spacing=made["spacing"],
        guidance=made["guidance"] if guidance is None else guidance,
        label=made["label"] if label is None else None if label == "none" else label,
        negative=negative,
        seed=made["seed"],
        batch_size=batch_size,
        dtype=made["dtype"],
        source=f"{start} of {_digest(source.manifest.model_dump_json(include={'settings', 'items'}))}",
    )
    names = [item.name for item in source.manifest.items]
    same_grid = settings.steps == made["steps"]
    sampler = sampler_of(InvertSettings(**made).inversion()) if same_grid else DDIM()
    kept = {name.removesuffix(f".{start}"): tensor for name, tensor in tensors.items() if name.endswith(f".{start}")}
    kept = {name.removeprefix("stored."): tensor for name, tensor in kept.items() if same_grid and name.startswith("stored.")}
    with progress_bar("sampling back") as on_step:
        done = jobs.sample_images(
            loaded, settings, _place(out, "reconstruct", settings), on_step, latents, names, sampler, Stored.of(kept)
        )
    _tell(done.path, as_json, done.manifest.model_dump(), "overview.png")


@app.command()
def diagnose(
    run: Annotated[Path, typer.Argument(help="A run directory of `unsample invert`.")], as_json: AsJson = False
) -> None:
    """The latents of a run against true noise."""
    from . import jobs
    from .store import Run

    opened = Run.load(run)
    diagnoses = jobs.diagnose_run(opened)
    if as_json:
        _print_json({name: diagnosis.to_dict() for name, diagnosis in diagnoses.items()})
    else:
        _print_table(jobs.table_of(opened, diagnoses))


@app.command()
def compare(
    paths: Photos,
    methods: Annotated[str, typer.Option(help="Names of `unsample methods`, with commas between; or all.")] = "all",
    nfe: Annotated[int, typer.Option(help="Network evaluations on the way up, the same for every method.")] = 50,
    forward: Forward = "0,2",
    spacing: SpacingOption = None,
    seed: Seed = 0,
    model: ModelName = "tiny-imagenet-32",
    limit: Limit = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    out: Annotated[Path, typer.Option("--out", help="Folder of the comparison; its runs are kept there.")] = Path(
        "runs/compare"
    ),
    as_json: AsJson = False,
) -> None:
    """Methods and starts side by side at equal cost: whiteness against reconstruction, and which ways no other beats."""
    from . import comparison, io
    from . import models as known

    loaded = known.load(model, device=device)
    found = comparison.compare(
        loaded,
        io.read_photos(paths, loaded.image_size, limit),
        methods=methods,
        forwards=forward,
        nfe=nfe,
        spacing=spacing,
        seed=seed,
        batch_size=batch_size,
        out=out,
    )
    if as_json:
        _print_json(found.to_dict())
        return
    _print_table(comparison.table(found.ways, comparison.BRIEF))
    for failure in found.failures:
        print(failure)
    print(out / "comparison.png")


@app.command()
def methods(as_json: AsJson = False) -> None:
    """The methods of inversion, with their cost and source."""
    from .methods import METHODS
    from .report import Table

    rows = tuple(
        (name, method.family, f"{method().evaluations(50)}", str(getattr(method(), "order", "exact")), method.source)
        for name, method in METHODS.items()
    )
    head = ("method", "family", "evaluations for 50 moves", "order", "source")
    if as_json:
        _print_json([dict(zip(head, row, strict=True)) for row in rows])
    else:
        _print_table(Table(head, rows))


@app.command()
def cite(
    run: Annotated[Path | None, typer.Argument(help="A run directory.")] = None,
    method: Annotated[str | None, typer.Option(help="A method instead of a run, written as for `unsample invert`.")] = None,
    as_json: AsJson = False,
) -> None:
    """The BibTeX of exactly what ran, or of a method."""
    from . import references
    from .store import Run

    if run is not None and method is None:
        manifest = Run.load(run).manifest
        keys, version, notes = references.keys_of_run(manifest), manifest.versions.get("unsample"), references.gaps(manifest)
    elif method is not None and run is None:
        keys, version, notes = references.keys_of_method(method), None, ()
    else:
        raise ArgumentError(f"expected a run directory or --method, given {'neither' if run is None else 'both'}")
    for note in notes:
        print(note, file=sys.stderr)
    bibtex = references.bibtex(keys, version)
    if as_json:
        _print_json({"keys": keys, "bibtex": bibtex})
    else:
        print(bibtex)


@app.command()
def models(as_json: AsJson = False) -> None:
    """The models known by name."""
    from .models import cards

    known = cards().values()
    if as_json:
        _print_json([{**vars(card), "present": card.present} for card in known])
        return
    from .report import Table

    head = ("name", "family", "size", "parameters", "conditions", "licence", "weights", "about")
    rows = (
        (c.name, c.family, c.size, c.parameters, c.conditions, c.licence, "present" if c.present else "missing", c.about)
        for c in known
    )
    _print_table(Table(head, tuple(rows)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, turning every error on purpose into one line and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        code = int(app(args=arguments, standalone_mode=False) or 0)
    except UnsampleError as error:
        code = _fail(str(error))
    except typer.TyperException as error:
        code = 2 if type(error).__name__ == "NoArgsIsHelpError" else _fail(error.format_message())
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except MemoryError as error:
        code = _fail(f"out of memory ({error}); use a smaller --batch-size")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        code = _fail("out of memory on the device; use a smaller --batch-size or --dtype bfloat16")
    if code == INTERRUPTED:
        print("interrupted; what was finished is kept, and the same command goes on from there", file=sys.stderr)
    sys.exit(code)


def _fail(message: str) -> int:
    print(f"unsample: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _invert(
    places: Sequence[str | Path], limit: int | None, out: Path | None, as_json: bool, *, load: dict[str, Any], **settings: Any
) -> None:
    from . import io, jobs
    from . import models as known
    from .settings import InvertSettings

    loaded = known.load(**load)
    checked = InvertSettings.of(loaded, **settings)
    photos = io.read_photos(places, loaded.image_size, limit)
    for photo in photos:
        for note in photo.notes:
            print(f"{photo.name}: {note}", file=sys.stderr)
    place = _place(out, "invert", checked, *(photo.id for photo in photos))
    with progress_bar(f"inverting {len(photos)} pictures") as on_step:
        run, diagnoses = jobs.invert_photos(loaded, photos, checked, place, on_step)
    if not as_json:
        _print_table(jobs.table_of(run, diagnoses))
        from .report import sentences

        for sentence in sentences(diagnoses):
            print(sentence)
    _tell(run.path, as_json, run.manifest.model_dump(), "report.html")


def _starts(forward: str) -> tuple[str, ...]:
    return tuple(text.strip() for text in forward.split(","))


def _place(out: Path | None, command: str, settings: Any, *more: str) -> Path:
    """Where a run goes: as asked, or a folder whose name follows from what it is, so that a rerun finds it."""
    return out or Path("runs") / f"{command}-{_digest(settings.model_dump_json(), *more)}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _tell(place: Path, as_json: bool, manifest: dict[str, Any], look_at: str) -> None:
    if as_json:
        _print_json({"run": str(place), **manifest})
    else:
        print(f"{place / look_at}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False, default=str))


def _print_table(table: Any) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200)
    rich_table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for index, name in enumerate(table.head):
        rich_table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in table.rows:
        rich_table.add_row(*map(Text, row))
    console.print(rich_table)
