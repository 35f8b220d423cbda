"""The paper's experiments: `unsample experiment list | run | all | report | compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError
from .model_options import Chosen, loads_a_model
from .options import AsJson, BatchSize, Seed, Strict, check_places, place, read_first
from .photos import leave, refuse_runs
from .show import print_json, print_table, say

if TYPE_CHECKING:
    from ..studies.experiments import Lab

experiment = typer.Typer(no_args_is_help=True, help="The paper's tables and figures: measured, drawn and judged.")


def check_data(places: list[str]) -> None:
    """Refuse places without photographs, if any are given."""
    if places:
        check_places(places)


Size = Annotated[str, typer.Option(help="smoke (a test), cpu (a laptop), or paper (the paper's number of images and steps).")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Photographs, besides images the model samples: pictures, folders or parquet files.",
        callback=read_first(check_data),
    ),
]
Checkpoints = Annotated[Path | None, typer.Option(**place(), help="Folder with checkpoints of a training run, for E16.")]
ShowData = Annotated[
    bool,
    typer.Option("--show-data/--hide-data", help="Hide: no pictures of photographs of --data, for reports to be passed on."),
]
Where = Annotated[
    Path | None,
    typer.Option("--out", **place(), help="Folder of the reports; by default named after the settings, in runs/."),
]
Cache = Annotated[Path, typer.Option(**place(), help="Folder that keeps samples and latents, shared by all experiments.")]

CACHE = Path("runs/experiments/cache")


@experiment.command("list")
def show(as_json: AsJson = False) -> None:
    """All experiments."""
    from ..runs.html import Table
    from ..studies.experiments import EXPERIMENTS, recipe

    known = [recipe(name) for name in EXPERIMENTS]
    if as_json:
        print_json([one.model_dump() for one in known])
    else:
        print_table(Table(("id", "title", "question"), tuple((one.id, one.title, one.question) for one in known)))


@experiment.command()
@loads_a_model
def run(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Of `unsample experiment list`, or recipe files.")],
    chosen: Chosen,
    size: Size = "cpu",
    data: Data = None,
    checkpoints: Checkpoints = None,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    out: Where = None,
    cache: Cache = CACHE,
    show_data: ShowData = True,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Run experiments; samples and latents that were made before are read back."""
    _check(ids, size, checkpoints)
    lab = _lab(chosen, cache, data, seed, batch_size, checkpoints, strict)
    _tell(_run(ids, size, lab, out, show_data=show_data), ids, as_json)
    leave(list(lab.rejected), len(lab.read))


@experiment.command("all")
@loads_a_model
def run_all(
    chosen: Chosen,
    size: Size = "cpu",
    data: Data = None,
    checkpoints: Checkpoints = None,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    out: Where = None,
    cache: Cache = CACHE,
    show_data: ShowData = True,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Run all experiments, but those that this model or these options do not allow (E16 needs --checkpoints)."""
    from ..studies.experiments import EXPERIMENTS

    ids = list(EXPERIMENTS)
    _check(ids, size, checkpoints)
    lab = _lab(chosen, cache, data, seed, batch_size, checkpoints, strict)
    _tell(_run(ids, size, lab, out, show_data=show_data, lenient=True), ids, as_json)
    leave(list(lab.rejected), len(lab.read))


@experiment.command()
def report(
    out: Annotated[Path, typer.Option("--out", **place(), help="Folder of the reports.")], as_json: AsJson = False
) -> None:
    """Join the reports of experiments into one page: every claim, the paper's numbers beside ours."""
    from ..studies.experiments import EXPERIMENTS

    _tell(out, list(EXPERIMENTS), as_json)


@experiment.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(**place("FOLDER..."), help="Reports of two or more runs, as of two models.")
    ],
    out: Annotated[Path | None, typer.Option("--out", **place(), help="File to write the table to, as Markdown.")] = None,
    as_json: AsJson = False,
) -> None:
    """The claims of several runs side by side, those first on which their verdicts differ."""
    from ..core.files import write_atomically
    from ..studies.experiments import side_by_side

    if len(folders) < 2:
        raise ArgumentError("expected two folders of reports or more, given one")
    table = side_by_side(folders)
    if out is not None:
        write_atomically(out, (table.markdown() + "\n").encode())
    if as_json:
        print_json([dict(zip(("differs", "id", *table.head[2:]), row, strict=True)) for row in table.rows])
    else:
        print_table(table)


def _check(ids: Sequence[str], size: str, checkpoints: Path | None) -> None:
    """Refuse unknown experiments and sizes, and checkpoints that none reads, before a model is loaded."""
    from ..studies.experiments import recipe

    recipes = [recipe(name) for name in ids]
    for one in recipes:
        one.make(size)
    if checkpoints is not None and "E16" not in [one.id for one in recipes]:
        raise ArgumentError("--checkpoints are read by E16 alone: run it, or leave them out")


def _lab(chosen: Chosen, cache: Path, data: Data, *rest: Any) -> Lab:
    from ..studies.experiments import Lab

    refuse_runs(data or ())
    return Lab(chosen.load(), cache, tuple(data or ()), *rest)


def _run(ids: Sequence[str], size: str, lab: Lab, out: Path | None, *, show_data: bool, lenient: bool = False) -> Path:
    """Run experiments one after the other; the folder. A lenient run passes over those that cannot be run, and says so."""
    from ..studies.experiments import open_reports, recipe, write

    recipes = [recipe(name) for name in ids]
    ready = [one.make(size) for one in recipes]  # a mistake must fail before any work
    if lab.data:
        lab.photographs(1)  # as must photographs that cannot be read
    folder = open_reports(out, size, lab, shows_data=show_data)
    for index, (one, made) in enumerate(zip(recipes, ready, strict=True), 1):
        say(f"{one.id} ({index} of {len(recipes)}): {one.title}")
        try:
            write(folder, one, size, lab, made.run(lab), shows_data=show_data)
        except ArgumentError as error:
            if not lenient:
                raise
            say(f"{one.id} is left out: {error}")
    for photo in lab.rejected.values():
        say(f"left out: {photo.reason}")
    return folder.path


def _tell(out: Path, ids: Sequence[str], as_json: bool) -> None:
    from ..runs.html import Table
    from ..studies.experiments import join, recipe

    page, claims = join(out)
    names = [recipe(name).id for name in ids]
    shown = tuple(row for row in claims.rows if row[0] in names)
    if as_json:
        head = ("id", "verdict", *claims.head[2:])
        print_json({"report": str(page), "claims": [dict(zip(head, row, strict=True)) for row in shown]})
    else:
        print_table(Table(claims.head, shown))
        print(page)
