"""Everything that can go wrong, as one tree.

    UnsampleError
    ├── ArgumentError (ValueError)    an argument of a function or option of the command line is out of range
    │   └── UnknownNameError          a name that no registry knows: model, method, start, prediction type ...
    ├── ImageError                    a picture is missing, unreadable, too small or of a kind we do not take
    ├── ModelError                    a model is missing, damaged or not of a family we know
    ├── RunError                      a run directory is damaged, or was made with other settings
    └── DivergenceError               an inversion left the finite numbers

Each message says what was expected, what was given, and what to do. The command line prints it as one line
and leaves with exit code 2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

__all__ = [
    "ArgumentError",
    "DivergenceError",
    "ImageError",
    "ModelError",
    "RunError",
    "UnknownNameError",
    "UnsampleError",
    "one_line",
    "printable",
]


class UnsampleError(Exception):
    """Root of every error that unsample raises on purpose; its message can be printed whatever names it quotes."""

    def __str__(self) -> str:
        return printable(super().__str__(), keep="\n\t")

    def __reduce__(self) -> tuple[Any, ...]:
        """Its class and message, whatever the class is called with: a pool of processes hangs on what it cannot unpickle."""
        return _restored, (type(self), self.args, vars(self))


class ArgumentError(UnsampleError, ValueError):
    """An argument is out of range, of the wrong shape, or at odds with another."""


class UnknownNameError(ArgumentError):
    """A name that no registry knows.

    >>> print(UnknownNameError("method", "dimm", ["ddim"]))
    unknown method 'dimm': expected one of ddim; did you mean 'ddim'?
    """

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = difflib.get_close_matches(str(given), names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind} {given!r}: expected one of {', '.join(names)}{hint}")


class ImageError(UnsampleError):
    """A picture is missing, unreadable, too small, or of a kind we do not take."""


class ModelError(UnsampleError):
    """A model is missing, damaged, or not of a family we know."""


class RunError(UnsampleError):
    """A run directory is damaged, in the way, or was made with other settings."""


class DivergenceError(UnsampleError):
    """An inversion or a sampling left the finite numbers."""


def _restored(kind: type[UnsampleError], message: tuple[Any, ...], notes: dict[str, Any]) -> UnsampleError:
    error = kind.__new__(kind, *message)
    vars(error).update(notes)
    return error


def one_line(error: BaseException, longest: int = 300) -> str:
    r"""What another library's error says, in one line of at most `longest` characters.

    >>> one_line(ValueError("expected a\n  number"))
    'expected a number'
    """
    return " ".join(str(error).split())[:longest]


def printable(text: str, keep: str = "") -> str:
    r"""`text`, such as a file's name, with all that could act on a terminal or cannot be encoded written as escapes.

    Those are control characters, marks that turn the direction of writing, and bytes that are not UTF-8; `keep` are left.

    >>> printable("a\x1b[2Jb\udcff.png")
    'a\\x1b[2Jb\\udcff.png'
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
