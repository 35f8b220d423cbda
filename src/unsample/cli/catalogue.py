"""Commands that list methods and models, say what a model is, and what to cite."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, no_type_check
from urllib.parse import urlsplit

import typer

from ..errors import ArgumentError, printable, shortened
from ..runs.progress import bytes_bar
from .model_options import size_of
from .options import AsJson, ImageSize, Revision, place
from .show import print_json, print_table, say


def methods(as_json: AsJson = False) -> None:
    """The methods of inversion, with their cost and source."""
    from ..core.corrections import Corrected
    from ..methods.registry import AUTO, METHODS
    from ..runs.html import Table

    made = {name: (method, method()) for name, method in METHODS.items()}
    rows = tuple(
        (
            name + (" (auto)" if name == AUTO and not as_json else ""),
            entry.family,
            f"{method.evaluations(50)}",
            "exact" if isinstance(method, Corrected) else f"{method.order}",
            entry.source,
        )
        for name, (entry, method) in made.items()
    )
    head = ("method", "family", "evaluations for 50 moves", "order", "source")
    if as_json:
        print_json([dict(zip(head, row, strict=True)) for row in rows])
    else:
        print_table(Table(head, rows))


def cite(
    run: Annotated[Path | None, typer.Argument(**place("RUN"), help="A run directory.")] = None,
    method: Annotated[str | None, typer.Option(help="A method instead of a run, written as for `unsample invert`.")] = None,
    as_json: AsJson = False,
) -> None:
    """The BibTeX of exactly what ran, or of a method."""
    from ..runs import citations as references
    from ..runs.directory import Run

    if run is not None and method is None:
        manifest = Run.load(run).manifest
        keys, version, notes = references.keys_of_run(manifest), manifest.versions.get("unsample"), references.gaps(manifest)
    elif method is not None and run is None:
        keys, version, notes = references.keys_of_method(method), None, ()
    else:
        raise ArgumentError(f"expected a run directory or --method, given {'neither' if run is None else 'both'}")
    for note in notes:
        say(note)
    bibtex = references.bibtex(keys, version)
    if as_json:
        print_json({"keys": keys, "bibtex": bibtex})
    else:
        print(bibtex)


models = typer.Typer(invoke_without_command=True)


@models.callback()
@no_type_check  # what typer gives is no typer.Context
def _list(context: typer.Context, as_json: AsJson = False) -> None:
    """The models known by name; any other diffusers directory or hub name of these families loads as well."""
    if context.invoked_subcommand:
        return
    from ..models import cards

    known = cards().values()
    if as_json:
        print_json([{**vars(card), "present": card.present} for card in known])
        return
    from ..runs.html import Table

    head = ("name", "family", "size", "weights", "parameters", "conditions", "licence", "source", "about")
    rows = (
        (
            *(card.name, card.family, card.size, "present" if card.present else "missing", card.parameters),
            *(card.conditions, card.licence, card.source or ("fetch" if card.files else "bundled"), card.about),
        )
        for card in known
    )
    print_table(Table(head, tuple(rows)), words=True)


@models.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Default: all that are fetched.")] = None,
    origin: Annotated[
        str | None, typer.Option("--from", help="The folder `weights` of unsample's repository, or its http(s) address.")
    ] = None,
) -> None:
    """Put models in place that come with unsample's repository, but not with the package."""
    from ..models import cards
    from ..models import fetch as put

    for name in names or [card.name for card in cards().values() if card.files]:
        with bytes_bar(name) as on_step:
            place = put(name, None if origin is None else check_address(origin), on_step=on_step)
        print(f"{name}: {place}")


def check_address(text: str) -> str:
    """A folder or an address from which models are fetched.

    Raises:
        ArgumentError: An address that cannot be one.
    """
    if not text.strip():
        raise ArgumentError(f"--from: expected a folder or an http(s) address, given {text!r}")
    try:
        urlsplit(text)
    except ValueError as error:
        raise ArgumentError(
            f"--from: expected a folder or an http(s) address, given {shortened(repr(text))} ({error})"
        ) from None
    return text


def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As for --model of the other commands.")],
    size: ImageSize = None,
    revision: Revision = None,
    classes: Annotated[bool, typer.Option("--classes", help="The names of its classes instead, one a line.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a model is: states, codec, schedule, conditions, and what of its files is not used. No weights are read."""
    from ..models import inspect_model
    from ..runs.html import Table

    about = inspect_model(model, size=size_of(size), revision=revision)
    if classes:
        if not about.classes:
            raise ArgumentError(f"model {about.name!r} has no classes: its conditions are {about.conditions}")
        print_json(about.classes) if as_json else print(*map(printable, about.classes), sep="\n")
    elif as_json:
        print_json(about.to_dict())
    else:
        print_table(Table(("", about.name), tuple((name.replace("_", " "), text) for name, text in about.rows())), words=True)
