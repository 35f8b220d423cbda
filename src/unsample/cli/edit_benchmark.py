"""The editing benchmark: `unsample edit-benchmark run | make`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError, counted
from ..runs.progress import progress_bar
from .model_options import Chosen, loads_a_model
from .options import (
    AT_ONCE,
    BITS,
    BUDGET,
    IN_MEMORY,
    AsJson,
    Out,
    Seed,
    SpacingOption,
    Strict,
    check_methods,
    check_start,
    number,
    place,
    read_first,
    whole,
)
from .photos import leave
from .show import print_json, print_table, say

if TYPE_CHECKING:
    from ..studies.pie_bench import Scores

edit_benchmark = typer.Typer(
    no_args_is_help=True, help="Edits measured in the layout of PIE-Bench: from source prompts to target prompts."
)

Folder = Annotated[Path, typer.Argument(**place("FOLDER"), help="With mapping_file.json and annotation_images/.")]
Methods = Annotated[
    str, typer.Option(help="Names of `unsample methods`, with commas between.", callback=read_first(check_methods))
]
Starts = Annotated[
    str,
    typer.Option(
        "--start", help="Forward starts, with commas between; every method from each.", callback=read_first(check_start)
    ),
]
EditorOption = Annotated[
    str,
    typer.Option(
        "--editor",
        metavar="prompt|masactrl|stylealigned|p2p",
        help="As for `unsample edit`, options too; several with commas between: every method from every start with each. An "
        "attention editor has fewer steps, for the source is evaluated beside its target.",
    ),
]
GuidanceOption = Annotated[
    float, number(-1000, 1000, "--guidance", help="w in eps_source + w (eps_target - eps_source) on the way down.")
]
StepsOption = Annotated[
    int, whole(BUDGET, "--steps", help="Moves of plain DDIM; others have as many as the same cost allows.")
]
UseMask = Annotated[bool, typer.Option("--use-mask", help="Edit inside of the region alone; without, it is for measuring.")]
Networks = Annotated[bool, typer.Option(help="Ask DINO, LPIPS and CLIP, which may be downloaded (2 GB).")]
ByType = Annotated[bool, typer.Option("--by-type", help="Also print the means of each type of edit.")]
EntriesLimit = Annotated[int | None, whole(BITS, "--limit", help="At most so many entries.")]
EntriesBatch = Annotated[int, whole(AT_ONCE, "--batch-size", help="Entries per network call.")]
OutFolder = Annotated[Path, typer.Option("--out", **place(), help="Folder of the set.")]
Template = Annotated[str, typer.Option(help='Of prompts; "a photo of a [{}]" for models that take words.')]


@edit_benchmark.command("run")
@loads_a_model
def run(
    folder: Folder,
    chosen: Chosen,
    methods: Methods = "ddim,look-ahead",
    start: Starts = "0,2",
    editor: EditorOption = "prompt",
    guidance: GuidanceOption = 3.0,
    steps: StepsOption = 50,
    spacing: SpacingOption = None,
    use_mask: UseMask = False,
    networks: Networks = True,
    seed: Seed = 0,
    limit: EntriesLimit = None,
    batch_size: EntriesBatch = 16,
    strict: Strict = False,
    by_type: ByType = False,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Edit every entry by every method from every start with every editor, at equal cost, and measure what came out."""
    from ..runs.directory import Run
    from ..runs.manifest import identity
    from ..runs.names import place_of
    from ..studies.compare import listed
    from ..studies.pie_bench import Benchmark, benchmarked, editable, edits_at_equal_cost, listed_editors
    from ..studies.pie_bench.report import as_dict

    model = chosen.load()
    candidates = edits_at_equal_cost(model, listed(methods), listed(start), steps, guidance, spacing, listed_editors(editor))
    kept = editable(model, folder, limit)
    if strict and kept.failed:
        raise ArgumentError(str(kept.failed[0]))
    bench = Benchmark(model, kept, candidates, guidance, seed, batch_size, use_mask, networks)
    bench.check()
    settings = {**bench.settings, "dtype": chosen.dtype}
    place = place_of(out, "edit-benchmark", json.dumps(identity(settings), sort_keys=True))
    opened = Run.open(place, "edit-benchmark", settings, kept.items, chosen.origin)
    with progress_bar(f"editing {counted(len(kept.entries), 'entry', 'entries')}") as on_step:
        scores, costs = benchmarked(bench, opened, on_step)
    if as_json:
        print_json({"run": str(opened.path), **as_dict(scores, costs)})
    else:
        _show(scores, costs, by_type)
        print(opened.path / "report.html")
    leave([failure.key for failure in kept.failed], len(kept.entries), "entries")


@edit_benchmark.command("make")
@loads_a_model
def make(
    data: Annotated[Path, typer.Argument(**place("DATA"), help="A parquet file with columns `image` and `label`.")],
    chosen: Chosen,
    out: OutFolder,
    entries: Annotated[int, whole(IN_MEMORY, "--entries", help="How many photographs, drawn from the file.")] = 64,
    template: Template = "[{}]",
    textured: Annotated[bool, typer.Option("--textured", help="Regions are what is not plain; else a box.")] = False,
    seed: Annotated[
        int, whole(BITS, "--seed", help="Of the photographs, and of the class that each is changed to.", least=0)
    ] = 0,
    strict: Strict = False,
) -> None:
    """Write a small set of our own: labelled photographs, each to be changed to another class of the model."""
    from ..pictures.read import Rejected
    from ..studies.pie_bench import make_small_set, read_labelled

    model = chosen.load()
    names = list(getattr(model.conditioner, "names", ()))
    if not names:
        raise ArgumentError(f"labels need names, and {model.name!r} has no classes: choose a --model that has")
    rejected: list[Rejected] = []
    photos = read_labelled(data, names, model.image_size, entries, seed=seed, rejected=None if strict else rejected)
    for one in rejected:
        say(f"left out: {one.reason}")
    make_small_set(photos, out, targets=names, template=template, region="textured" if textured else "centre", seed=seed)
    print(out)
    leave([one.name for one in rejected], len(photos))


def _show(scores: Scores, costs: Mapping[str, Any], types: bool) -> None:
    from ..studies.pie_bench.report import by_type, differences, notes, table_of

    print_table(table_of(scores, costs))
    if (apart := differences(scores, costs)) is not None:
        print("\nentry by entry; * where 0 lies outside of the 95 % interval")
        print_table(apart)
    if types:
        print()
        print_table(by_type(scores))
    for line in notes(scores):
        print(line)
