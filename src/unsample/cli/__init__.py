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
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import UnsampleError, one_line
from ..runs.progress import show_progress
from .catalogue import cite, inspect, methods, models
from .compare import compare
from .edit import edit, variations
from .edit_benchmark import edit_benchmark
from .experiment import experiment
from .interpolate import interpolate
from .invert import demo, diagnose, invert
from .sample import reconstruct, sample
from .show import say
from .words import as_now, check_arguments, instead

__all__ = ["app", "main"]

INTERRUPTED = 130

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DIFFUSERS_VERBOSITY": "critical", "TRANSFORMERS_VERBOSITY": "critical"}
"""What they log of a model that cannot be read is in the message already."""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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


def _version(wanted: bool) -> bool:
    if wanted:
        print(f"unsample {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _unsample(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Undo a diffusion model's sampling: turn images back into noise that is really noise."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, turning every error on purpose into one line and exit code 2."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", message="expected images in")  # files are read to [-1, 1], however light they are
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_where, **_how: say(one_line(Warning(message)))
        sys.exit(_code(arguments))


def _code(arguments: Sequence[str] | None) -> int:
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
    except UnsampleError as error:
        code = _fail(str(error))
    except typer.TyperException as error:
        code = 2 if type(error).__name__ == "NoArgsIsHelpError" else _fail(_message(error))
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _fail(f"{error.filename or 'a file'}: {error.strerror or one_line(error)}")
    except MemoryError as error:
        code = _fail(f"out of memory ({error}); use a smaller --batch-size")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":
            raise
        code = _fail("out of memory on the device; use a smaller --batch-size or --dtype bfloat16")
    if code == INTERRUPTED:
        say("interrupted; what was finished is kept, and the same command goes on from there")
    return code


def _run(arguments: Sequence[str]) -> int:
    check_arguments(arguments)
    given, former = as_now(arguments)
    for line in former:
        say(line)
    with show_progress(say):
        return int(app(args=given, prog_name="unsample", standalone_mode=False) or 0)


def _message(error: Any) -> str:
    """What is wrong with what was typed; of an option that there is not, what it is called here."""
    name, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    ours = instead(name, context.command) if name and context else ""
    return f"{error.message}: {ours}" if ours else str(error.format_message())


def _fail(message: str) -> int:
    say(f"unsample: {message}")
    return 2
