"""The command line. It parses, calls `runs` and `studies`, and shows; there is no science in it.

Every error on purpose is one line on standard error and exit code 2; so are a full disk, standard output that cannot be
written, too many open files and too little memory. Where some pictures cannot be read the rest is done, and the code is 1.
Ctrl-C leaves with 130. Either way what was finished is kept, and the same command goes on from there. A reader of the output
that ends first, like `| head -1`, ends the command silently with 0. With --json, standard output holds one JSON document and
nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import ArgumentError, UnsampleError, one_line
from ..runs.progress import show_progress
from .catalogue import cite, inspect, methods, models
from .compare import compare
from .dataset import dataset
from .edit import edit, variations
from .edit_benchmark import edit_benchmark
from .experiment import experiment
from .interpolate import interpolate
from .invert import demo, diagnose, invert
from .sample import reconstruct, sample
from .show import say
from .web import web
from .words import as_now, check_arguments, instead

__all__ = ["app", "main"]

INTERRUPTED = 130

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "DIFFUSERS_VERBOSITY": "critical", "TRANSFORMERS_VERBOSITY": "critical"}
"""What they log of a model that cannot be read is in the message already."""

KEPT = "what was finished is kept, and the same command goes on from there"

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""What PyTorch says where an accelerator has no more memory, and where the CPU has none, on Linux and on Windows."""

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
    web,
)
"""In the order of --help."""

for _command in COMMANDS:
    app.command()(_command)
app.add_typer(models, name="models")
app.add_typer(dataset, name="dataset")
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
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 (Python has None for a closed one, and print takes stdout)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_where, **_how: say(one_line(Warning(message)))
        sys.exit(_code(arguments))


def _code(arguments: Sequence[str] | None) -> int:
    try:
        if sys.stdout is None:
            raise ArgumentError("standard output is closed: expected somewhere to print to, such as > /dev/null")
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except UnsampleError as error:
        code = _fail(str(error))
    except typer.TyperException as error:
        code = 2 if type(error).__name__ == "NoArgsIsHelpError" else _fail(_message(error))
    except typer.Exit as stop:
        code = stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has read enough
        code = _dropped(0)
    except OSError as error:
        code = _dropped(_fail(f"{error.filename or 'standard output'}: {error.strerror or one_line(error)}; {KEPT}"))
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)):
            raise
        code = _fail(f"out of memory ({one_line(error, 100)}); use a smaller --batch-size or --dtype bfloat16; {KEPT}")
    except ImportError as error:  # of a library that is damaged, or cannot be opened now
        code = _fail(f"cannot load {error.name or 'a library'} ({one_line(error)}); {KEPT}")
    return code


def _run(arguments: Sequence[str]) -> int:
    check_arguments(arguments)
    given, former = as_now(arguments)
    for line in former:
        say(line)
    with show_progress(say) as shown:
        try:
            code = int(app(args=given, prog_name="unsample", standalone_mode=False) or 0)
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
    if code == INTERRUPTED:
        with contextlib.suppress(ValueError):  # in another thread; another Ctrl-C would interrupt PyTorch as it ends
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        say(f"interrupted; {KEPT if shown.began else 'nothing was written yet'}")
    return code


def _message(error: Any) -> str:
    """What is wrong with what was typed; of an option that there is not, what it is called here."""
    name, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    ours = instead(name, context.command, _siblings(context)) if name and context else ""
    said = str(error.format_message()).replace(": Value error, ", ": ", 1)  # as pydantic calls what a parser refuses
    return f"{error.message}: {ours}" if ours else said


def _siblings(context: Any) -> dict[str, set[str]]:
    """The other commands of the group, in the order of --help, and their options."""
    commands = getattr(getattr(context.parent, "command", None), "commands", {})
    return {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in commands.items()
        if command is not context.command
    }


def _dropped(code: int) -> int:
    """`code`, after what standard output still holds was dropped: Python would try, and fail, to write it at the end."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):  # there is nowhere else to say it
        say(f"unsample: {message}")
    return 2
