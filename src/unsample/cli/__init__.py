"""The command line. It parses, calls `runs` and `studies`, and shows; there is no science in it.

Every error on purpose is one line on standard error and exit code 2. Where some pictures cannot be read the rest is done, and
the code is 1. Ctrl-C leaves with 130 and keeps what was finished; the
same command goes on from there. With --json, standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import typer

from ..errors import UnsampleError
from .catalogue import cite, inspect, methods, models
from .compare import compare
from .edit import edit, variations
from .edit_benchmark import edit_benchmark
from .experiment import experiment
from .interpolate import interpolate
from .invert import demo, diagnose, invert
from .sample import reconstruct, sample

__all__ = ["app", "main"]

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Undo a diffusion model's sampling: turn images back into noise that is really noise.",
)
COMMANDS = (
    invert,
    demo,
    sample,
    reconstruct,
    edit,
    variations,
    interpolate,
    diagnose,
    compare,
    methods,
    cite,
    inspect,
)
"""In the order of --help."""

for _command in COMMANDS:
    app.command()(_command)
app.add_typer(models, name="models")
app.add_typer(edit_benchmark, name="edit-benchmark")
app.add_typer(experiment, name="experiment")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, turning every error on purpose into one line and exit code 2."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore", message="expected images in")  # files are read to [-1, 1], however light they are
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
