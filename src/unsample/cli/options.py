"""Options that commands share: each a type, with its name and its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..methods import registry

__all__ = [
    "DEFAULT",
    "PAPER",
    "AsJson",
    "BatchSize",
    "Device",
    "Dtype",
    "EvalAtOption",
    "Forward",
    "Guidance",
    "ImageSize",
    "KeepOption",
    "Label",
    "Limit",
    "Method",
    "ModelName",
    "Negative",
    "Offload",
    "Out",
    "Photos",
    "Revision",
    "Seed",
    "SpacingOption",
    "Steps",
    "Strict",
    "Tiling",
    "Variant",
]

DEFAULT, PAPER = ({"--method": typed.method, "--forward": typed.forward} for typed in (registry.DEFAULT, registry.PAPER))

Photos = Annotated[
    list[str], typer.Argument(metavar="PATH...", help="Pictures, folders, globs, or parquet files of pictures.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Stop at the first picture that cannot be read; else it is left out, and the exit code is 1."
    ),
]
ModelName = Annotated[
    str, typer.Option("--model", help="A name of `unsample models`, a diffusers directory, a checkpoint file, or a hub name.")
]
ImageSize = Annotated[
    str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Of the pictures, like 512x768; default: the model's own.")
]
Revision = Annotated[str | None, typer.Option(help="Commit or tag of a hub name.")]
Variant = Annotated[str | None, typer.Option(help="fp16 reads the weights that are saved under that name.")]
Offload = Annotated[bool, typer.Option("--offload", help="On the device only the network that is at work.")]
Tiling = Annotated[bool, typer.Option("--tiling", help="The autoencoder works through large pictures in tiles.")]
Method = Annotated[
    str,
    typer.Option(help="auto, or a name of `unsample methods`, with options: fixed-point:iterations=3 ..."),
]
EvalAtOption = Annotated[
    str | None, typer.Option("--eval-at", help="The level the network is told on the way up: target (default) or source.")
]
Steps = Annotated[int, typer.Option(help="Moves from one end of the grid to the other.")]
SpacingOption = Annotated[
    str | None,
    typer.Option("--spacing", help="trailing, linspace, karras, log-snr, trdi, leading:offset=3 ...; default: the model's."),
]
Forward = Annotated[
    str,
    typer.Option(help="Forward start: 0 (plain inversion), 2, 4%, sigma=0.1; several with commas, side by side."),
]
Seed = Annotated[int, typer.Option(help="Noise is drawn from the seed and each picture's content.")]
Guidance = Annotated[float, typer.Option(help="w in eps_u + w (eps_c - eps_u); 1 is conditional only.")]
Label = Annotated[
    str | None,
    typer.Option("--label", "--prompt", help="Class name or index, or what the picture shows; by default unconditional."),
]
Negative = Annotated[
    str | None, typer.Option(help="Class or prompt that guidance moves away from, in place of the unconditional.")
]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Pictures per network call.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
Dtype = Annotated[str, typer.Option(help="Precision of the network: float32, bfloat16, float16.")]
KeepOption = Annotated[str, typer.Option("--keep", help="Also keep the way up: latent (no), states, eps, or all.")]
Out = Annotated[Path | None, typer.Option("--out", help="Run directory; by default named after the settings, in runs/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
