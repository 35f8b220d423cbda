"""The command that sets methods side by side."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..errors import printable
from .model_options import Chosen, loads_a_model
from .options import (
    BUDGET,
    AsJson,
    BatchSize,
    Guidance,
    Label,
    Limit,
    Out,
    Photos,
    Seed,
    SpacingOption,
    Start,
    Strict,
    check_methods,
    read_first,
    whole,
)
from .photos import leave, read_given, tell
from .show import print_json, print_table


@loads_a_model
def compare(
    paths: Photos,
    chosen: Chosen,
    methods: Annotated[
        str,
        typer.Option(help="Names of `unsample methods`, with commas between; or all.", callback=read_first(check_methods)),
    ] = "all",
    nfe: Annotated[
        int, whole(BUDGET, "--nfe", help="Network evaluations on the way up, the same for every method.", least=2)
    ] = 50,
    start: Start = "0,4%",
    spacing: SpacingOption = None,
    label: Label = None,
    guidance: Guidance = 1.0,
    seed: Seed = 0,
    limit: Limit = None,
    strict: Strict = False,
    batch_size: BatchSize = 64,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Methods and starts side by side at equal cost: whiteness against reconstruction, and which ways no other beats."""
    from ..runs.manifest import identity
    from ..runs.names import place_of
    from ..studies import compare as comparison

    loaded = chosen.load()
    comparison.candidates_of(
        loaded, methods, start, nfe, spacing, label, guidance
    )  # refuses what is wrong before pictures are read
    reading = read_given(paths, loaded.image_size, limit, strict=strict)
    tell(reading)
    settings: dict[str, Any] = {"nfe": nfe, "spacing": spacing, "seed": seed, "batch_size": batch_size, "guidance": guidance}
    known = comparison.settings_of(loaded, methods, start, condition=label, **settings)
    place = place_of(out, "compare", json.dumps(identity(known)), *(photo.id for photo in reading.photos))
    result = comparison.compare(loaded, reading.photos, methods=methods, starts=start, condition=label, out=place, **settings)
    if as_json:
        print_json(result.to_dict())
    else:
        print_table(comparison.table(result.candidates, comparison.BRIEF))
        for line in (*result.failures, *result.notes()):
            print(printable(line))
        print(printable(str(place / "comparison.png")))
    leave(reading.left_out, len(reading.photos))
