"""Names of options: former ones, which are taken for one version, and those of diffusers, which are answered with ours."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..errors import ArgumentError, printable, shortened

FORMER = {"--forward": "--start"}
"""Former name -> name. They end with version 0.2."""

LONGEST = 10_000
"""Characters of an argument: more than any prompt or path."""

DIFFUSERS = {
    "guidance-scale": "--guidance",
    "cfg": "--guidance",
    "cfg-scale": "--guidance",
    "scale": "--guidance",
    "num-inference-steps": "--steps",
    "num-inversion-steps": "--steps",
    "inference-steps": "--steps",
    "inversion-steps": "--steps",
    "ddim-steps": "--steps",
    "negative-prompt": "--negative",
    "source-prompt": "--source",
    "target-prompt": "--to",
    "target": "--to",
    "edit-prompt": "--to",
    "class": "--label",
    "class-label": "--label",
    "class-labels": "--label",
    "num-images": "--count",
    "num-samples": "--count",
    "num-images-per-prompt": "--count",
    "generator": "--seed",
    "height": "--size",
    "width": "--size",
    "resolution": "--size",
    "torch-dtype": "--dtype",
    "precision": "--dtype",
    "half": "--dtype",
    "enable-model-cpu-offload": "--offload",
    "cpu-offload": "--offload",
    "vae-tiling": "--tiling",
    "enable-vae-tiling": "--tiling",
    "pretrained-model-name-or-path": "--model",
    "model-id": "--model",
    "ckpt": "--model",
    "checkpoint": "--model",
    "mask-image": "--mask",
    "scheduler": "--method",
    "sampler": "--method",
    "output": "--out",
    "output-dir": "--out",
    "outdir": "--out",
    "num-frames": "--frames",
    "image": "PATH",
    "images": "PATH",
    "input": "PATH",
    "prompt": "--source and --to",
    "label": "--source and --to",
    "condition": "--source and --to",
}
"""What diffusers, and scripts around it, call an option -> what it is here; the last are of commands without a prompt."""


def as_now(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments under the names that options have now, and a warning for each former name.

    >>> as_now(["invert", "--forward=2"])
    (['invert', '--start=2'], ['unsample: --forward is --start now; its former name ends with version 0.2'])
    """
    renamed, warnings = [], {}
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in FORMER and "--" not in arguments[:position]:
            warnings[name] = f"unsample: {name} is {FORMER[name]} now; its former name ends with version 0.2"
            argument = FORMER[name] + equals + value
        renamed.append(argument)
    return renamed, list(warnings.values())


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse arguments that are no text, unless a file is called so.

    Raises:
        ArgumentError: One that is too long, or holds bytes that are not UTF-8 or end a name.
    """
    for argument in arguments:
        if len(argument) > LONGEST:
            raise ArgumentError(f"expected arguments of at most {LONGEST:,} characters, given {shortened(argument)}")
        if "\0" in argument or (not argument.isascii() and not _is_text(argument) and not os.path.lexists(argument)):
            raise ArgumentError(f"expected arguments in UTF-8, given '{printable(shortened(argument))}'")


def instead(name: str, command: Any, siblings: Mapping[str, Collection[str]] = {}) -> str:
    """What an option that `command` does not have is called here; "" if nothing is known.

    Args:
        name: As typed, `--guidance_scale`.
        command: A click command.
        siblings: The other commands -> their options.
    """
    known = {option for parameter in command.params for option in parameter.opts}
    plain = name.lstrip("-").replace("_", "-").lower()
    ours = f"--{plain}" if f"--{plain}" in known else DIFFUSERS.get(plain, "")
    if ours == "PATH":
        return "give pictures by their paths alone, without an option"
    if ours and ours.split()[0] in known:
        return f"it is {ours} here" + (" HEIGHTxWIDTH" if ours == "--size" else "")
    if not ours.startswith("--"):
        ours = f"--{plain}"
    others = [f"`unsample {other}`" for other, options in siblings.items() if ours in options]
    return f"this command has no {ours}; {' and '.join(others)} {'has' if len(others) == 1 else 'have'} it" if others else ""


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True
