"""Datasets of any size: `unsample dataset invert | diagnose | sample | status`."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..core.batching import OnStep
from ..errors import ArgumentError, counted, printable
from ..runs.progress import pictures_bar, progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    AT_ONCE,
    BITS,
    CONDITION,
    DEFAULT,
    NAMED,
    TRAINED,
    AsJson,
    EvalAtOption,
    Guidance,
    Label,
    Limit,
    Method,
    Negative,
    SpacingOption,
    Steps,
    check_one_start,
    check_text,
    number,
    read_first,
    whole,
)
from .show import print_json, print_table, say, spans

if TYPE_CHECKING:
    from ..dataset import Status

dataset = typer.Typer(no_args_is_help=True, help="Datasets of any size to their noise, on one machine or on many.")

LATENTS = ("float32", "float16")

PROCESSES = 100_000, "each is a process"

LEFT_OUT, FEW, MOST = 1, 10, (1_000_000, "a shard is made in memory")


def _check_sources(places: Sequence[str]) -> None:
    for place in places:
        check_text(place)


def _check_engine(name: str) -> None:
    from ..dataset.engines import check_engine

    check_engine(name)


def _check_out(place: str) -> None:
    from ..dataset.store import Store

    check_text(place)
    if not Store(place).outlives:
        raise ArgumentError(f"--out: expected a place that is there when this command has ended, given {printable(place)}")


def _check_latents(name: str) -> None:
    if name not in LATENTS:
        raise ArgumentError(f"--latents: expected one of {', '.join(LATENTS)}, given {name!r}")


Place = Annotated[
    str, typer.Argument(metavar="OUT", callback=NAMED, help="A folder, or an address, of `unsample dataset invert`.")
]
OUT = read_first(_check_out)
Out = Annotated[str, typer.Option("--out", callback=OUT, help="The folder, or an address such as s3://bucket/noise.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        callback=read_first(_check_engine),
        help="Who works: local, torchrun (every process that torchrun or srun starts), or ray.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", callback=NAMED, help="Of a Ray cluster; by default RAY_ADDRESS, or one started here."),
]
Workers = Annotated[int | None, whole(PROCESSES, "--workers", help="Actors of Ray; by default one a GPU, or one a machine.")]
Batch = Annotated[int, whole(AT_ONCE, "--batch-size", help="Pictures per network call.")]


@dataset.command("invert")
@loads_a_model
def invert_dataset(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            callback=read_first(_check_sources),
            help="Folders, globs, parquet or WebDataset tar files; here, or at s3://, gs://, hf:// ...",
        ),
    ],
    chosen: Chosen,
    out: Out,
    engine: EngineOption = "local",
    shard: Annotated[int, whole(MOST, "--shard", help="Pictures of a file.")] = 1024,
    limit: Limit = None,
    method: Method = DEFAULT["--method"],
    eval_at: EvalAtOption = None,
    steps: Steps = 50,
    spacing: SpacingOption = None,
    start: Annotated[
        str,
        typer.Option("--start", help="One start, as of `unsample invert`.", callback=read_first(check_one_start)),
    ] = DEFAULT["--start"],
    seed: Annotated[
        int, whole(BITS, "--seed", help="Noise is drawn from the seed and each picture's id.", least=-BITS[0])
    ] = 0,
    guidance: Guidance = 1.0,
    label: Label = None,
    condition_column: Annotated[
        str | None,
        typer.Option(
            help="Each picture's class or caption, kept in the column `condition`: a column of parquet files, or cls, txt, "
            "json.caption of tar files."
        ),
    ] = None,
    image_column: Annotated[str, typer.Option(help="Pictures, of parquet files.")] = "image",
    id_column: Annotated[str | None, typer.Option(help="Ids, of parquet files; default: file and row.")] = None,
    batch_size: Batch = 64,
    latents: Annotated[
        str, typer.Option(callback=read_first(_check_latents), help="How latents are kept: float32 or float16.")
    ] = "float32",
    psnr: Annotated[bool, typer.Option("--psnr", help="Sample back, too, and keep each picture's PSNR.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Stop at the first picture that cannot be read; else it is listed, and the code is 1."),
    ] = False,
    address: Address = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Invert all pictures of a dataset; the same command goes on where it was interrupted."""
    from ..dataset import tasks

    settings: dict[str, Any] = {"method": method, "eval_at": eval_at, "steps": steps, "spacing": spacing}
    settings |= {"start": start, "seed": seed, "guidance": guidance, "label": label, "batch_size": batch_size}
    settings |= {"image_column": image_column, "id_column": id_column, "condition_column": condition_column}
    settings |= {"shard": shard, "limit": limit, "latents": latents, "psnr": psnr, "strict": strict}
    settings |= {"engine": engine, "address": address, "workers": workers}
    with _progress("inverting", engine) as on_images:
        status = tasks.invert("", source, out, loading=chosen.loading(chosen.origin), on_images=on_images, **settings)
    _show(status, as_json, engine)


@dataset.command("sample")
@loads_a_model
def sample_dataset(
    source: Place,
    chosen: Chosen,
    out: Annotated[
        str | None, typer.Option("--out", callback=OUT, help="Of the pictures; default: `samples` in the dataset.")
    ] = None,
    engine: EngineOption = "local",
    steps: Annotated[int | None, whole(TRAINED, "--steps", help="Moves down; default is as many as went up.")] = None,
    guidance: Annotated[float | None, number(-1000, 1000, "--guidance", help="Default is the inversion's.")] = None,
    label: Annotated[str | None, typer.Option(*CONDITION, help="For all; `none` for none. Default is each row's own.")] = None,
    negative: Negative = None,
    batch_size: Batch = 64,
    address: Address = None,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """The pictures back from the noise of a dataset, or under another condition. The model is that of the inversion."""
    from ..dataset import tasks
    from ..dataset.plan import Plan
    from ..dataset.store import Store
    from ..runs.manifest import Origin

    there = Plan.read(Store(source))
    made = there.origin or Origin(source=str(there.settings.get("model")))
    loading = chosen.loading(chosen.moved(made), str(there.settings.get("dtype")))
    with _progress("sampling", engine) as on_images:
        status = tasks.sample(
            source,
            out,
            engine=engine,
            steps=steps,
            guidance=guidance,
            label=label,
            negative=negative,
            batch_size=batch_size,
            loading=loading,
            address=address,
            workers=workers,
            on_images=on_images,
        )
    _show(status, as_json, engine)


@dataset.command("diagnose")
def diagnose_dataset(
    place: Place,
    seed: Annotated[int, whole(BITS, "--seed", help="Of intervals and of true noise.", least=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """The latents of a dataset against true noise, from the sums that were kept of each shard."""
    from ..dataset import diagnose
    from ..runs.html import Table

    with progress_bar("adding up the shards"):
        diagnosis = diagnose(place, seed=seed)
    if as_json:
        print_json(diagnosis.to_dict())
        return
    print_table(Table(("diagnostic", f"{diagnosis.images} latents", "true noise", "note"), _rows(diagnosis.rows)))


@dataset.command("status")
def status_dataset(place: Place, as_json: AsJson = False) -> None:
    """What is done of a dataset, what is missing, and which pictures were left out, with the reason."""
    from ..dataset.status import rejected_rows
    from ..dataset.store import Store
    from ..dataset.tasks import status as status_of

    status = status_of(place)
    rejected = rejected_rows(Store(place), status, None if as_json else FEW)
    if as_json:
        print_json(status.to_dict() | {"rejected_rows": [{"id": name, "reason": reason} for name, reason in rejected]})
        return
    print(printable(f"{status.plan.command}, {status.plan.settings.get('model')}: {status}"))
    for what, numbers in (("missing", status.missing), ("damaged", status.damaged)):
        if numbers:
            print(f"{what}: {'shard' if len(numbers) == 1 else 'shards'} {spans(numbers)}")
    if not status.complete:
        print("to go on, give the command that made it again")
    for name, reason in rejected:
        print(printable(f"left out: {reason if name in reason else f'{name}: {reason}'}"))
    if status.rejected > len(rejected):
        print(f"and {status.rejected - len(rejected)} more, in rejected/")


def _rows(rows: Sequence[Any]) -> tuple[tuple[str, ...], ...]:
    return tuple((row.name, str(row), row.noise or "-", row.note) for row in rows)


@contextlib.contextmanager
def _progress(what: str, engine: str) -> Iterator[OnStep | None]:
    """Of several processes, the first shows how far all of them are."""
    from ..dataset.engines import Rank

    rank = Rank.here() if engine == "torchrun" else Rank()
    if rank.number:
        yield None
        return
    with pictures_bar(what if rank.count == 1 else f"{what}, {rank.count} processes") as on_images:
        yield on_images


def _show(status: Status, as_json: bool, engine: str) -> None:
    """What was done, where it is, and what comes next; of pictures left out a last line and their own exit code."""
    from ..dataset.engines import Rank

    speaks = engine != "torchrun" or not Rank.here().number  # one of several processes
    if not speaks:
        pass
    elif as_json:
        print_json(status.to_dict())
    else:
        print(printable(str(status)))
        print(printable(status.place))
    if not status.complete and speaks:
        say(f"this process has done its part; the others: unsample dataset status {shlex.quote(status.place)}")
    elif "invert" in status.plan.command and not as_json and status.rows and speaks:
        say(f"next: unsample dataset diagnose {shlex.quote(status.place)}")
    if status.rejected and status.complete:
        whole = counted(status.rows + status.rejected, "picture")
        say(
            f"unsample: {status.rejected} of {whole} left out, the rest is done: "
            f"see `unsample dataset status {shlex.quote(status.place)}`"
        )
        raise typer.Exit(LEFT_OUT)
