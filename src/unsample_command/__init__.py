"""The command `unsample`, before PyTorch is loaded: Ctrl-C in the seconds that this takes ends it silently.

It is a package of its own because `import unsample` already loads PyTorch; `python -m unsample` imports that first, and it
calls `quiet` before all else.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]

INTERRUPTED = 130


def quiet() -> None:
    """From now on Ctrl-C ends the process silently, unless it is ignored, as after nohup, or handled otherwise."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def main() -> None:
    """Load the command line and run it."""
    quiet()
    try:
        from unsample.cli import main as run
    except (ImportError, OSError) as error:  # as when too many files are open
        sys.exit(_fail(error))
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _leave(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _fail(error: Exception) -> int:
    print(f"unsample: cannot be loaded ({' '.join(str(error).split())[:300]})", file=sys.stderr)
    return 2
