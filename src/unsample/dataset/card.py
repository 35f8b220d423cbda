"""The data card beside the shards: what they are, how they were made, and how they are opened."""

from __future__ import annotations

import json
from dataclasses import asdict

from ..errors import counted
from .plan import DATA, INVERT
from .shards import read_file, read_table
from .status import Status
from .store import Store

COLUMN_NOTES = {
    "id": "of the picture, by its place in the source or by its own column; noise is drawn from it and the seed",
    "latent": "the noise, (channels, height, width)",
    "condition": "the class or caption that it was inverted under, its own by `--condition-column`; null is none",
    "start_timestep": "the trained timestep at which the inversion starts",
    "start_ratio": "sigma / alpha there: noise over signal; 0 is the clean picture",
    "nfe": "network evaluations on the way to the noise",
    "seed": "of the noise at the start",
    "std_plain": "standard deviation of the latent where the picture is plain; 1 on true noise, NaN without such a place",
    "std_other": "the same elsewhere",
    "lag1_plain": "correlation of neighbours where the picture is plain; 0 on true noise",
    "lag1_other": "the same elsewhere",
    "psnr": "of the picture sampled back, dB",
    "image": "a PNG file",
}


def card(store: Store, status: Status) -> str:
    """The text of README.md, of a dataset that is complete; a function of the shards alone."""
    plan = status.plan
    line = next(line for line in status.lines.values() if line.rows)
    schema = read_table(read_file(store, line, DATA)).schema
    columns = [f"| `{each.name}` | `{each.type}` | {_note(each.name)} |" for each in schema]
    settings = {name: value for name, value in plan.settings.items() if value is not None}
    what = "Noise of images, by inversion of a diffusion model" if plan.command == INVERT else "Images sampled from noise"
    return "\n".join(
        [
            "---",
            "configs:",
            "- config_name: default",
            f"  data_files: {DATA}/*.parquet",
            f"size_categories: [{_size(status.rows)}]",
            "tags: [diffusion-inversion, unsample]",
            "---",
            "",
            f"# {what}",
            "",
            f"{counted(status.rows, 'row')} in {counted(plan.shards, 'shard')}, made by `unsample {plan.command}` with the "
            f"model `{plan.settings.get('model')}`; {counted(status.rejected, 'picture')} left out"
            f"{' (see `rejected/`)' if status.rejected else ''}.",
            "",
            "| column | type | |",
            "|---|---|---|",
            *columns,
            "",
            "```python",
            "import datasets",
            f'rows = datasets.load_dataset("parquet", data_files="{DATA}/*.parquet", split="train").with_format("numpy")',
            "```",
            "",
            "The whole of what it was made with, which `unsample dataset diagnose` and `sample` read from `plan.json`:",
            "",
            "```json",
            json.dumps({"settings": settings, "columns": asdict(plan.columns), "versions": plan.versions}, indent=2),
            "```",
            "",
        ]
    )


def _note(name: str) -> str:
    return "what the method keeps to return exactly" if name.startswith("stored.") else COLUMN_NOTES.get(name, "")


def _size(rows: int) -> str:
    """As the hub has it."""
    steps = [
        (1_000, "n<1K"),
        (10_000, "1K<n<10K"),
        (100_000, "10K<n<100K"),
        (1_000_000, "100K<n<1M"),
        (10_000_000, "1M<n<10M"),
    ]
    return next((name for most, name in steps if rows < most), "n>10M")
