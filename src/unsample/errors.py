"""Everything that can go wrong, as one tree.

    UnsampleError
    ├── ArgumentError (ValueError)    an argument of a function or option of the command line is out of range
    │   └── UnknownNameError          a name that no registry knows: model, method, start, prediction type ...
    ├── ImageError                    a picture is missing, unreadable, too small or of a kind we do not take
    ├── ModelError                    a model is missing, damaged or not of a family we know
    ├── RunError                      a run directory is damaged, or was made with other settings
    └── DivergenceError               an inversion left the finite numbers

    DivergenceWarning (RuntimeWarning) an inversion went far beyond noise, if still in finite numbers

Each message says what was expected, what was given, and what to do. The command line prints it as one line
and leaves with exit code 2.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

FEW, LONG, SUGGESTED = 10, 80, 3
"""Messages list about so many names, quote so many characters of what was given, and suggest at most so many names."""


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
    """A name that no registry knows; names that hold what was given as words, or else begin with it, are suggested first.

    >>> print(UnknownNameError("method", "dimm", ["ddim"]))
    unknown method 'dimm': did you mean 'ddim'? Expected one of ddim
    >>> print(UnknownNameError("class", "Bus", ["abacus", "school bus", "trolleybus"]))
    unknown class 'Bus': did you mean 'school bus' or 'trolleybus'? Expected one of abacus, school bus, trolleybus
    >>> print(UnknownNameError("class", "x", map(str, range(99)), see="see `unsample x`"))
    unknown class 'x': expected one of 0, 1, 10, 11, 12, 13, 14, 15, 16, 17 ... and 89 more; see `unsample x`
    """

    def __init__(self, kind: str, given: str, known: Iterable[str], see: str = "") -> None:
        names, given = sorted(set(known)), str(given)
        close = _containing(given[:LONG], names) or difflib.get_close_matches(given[:LONG], names, n=1)
        left = len(names) - FEW
        listed = ", ".join(names) if left <= 2 else f"{', '.join(names[:FEW])} ... and {left} more"
        expected = f"did you mean {' or '.join(map(repr, close))}? Expected" if close else "expected"
        more = f"; {see}" if see and left > 2 else ""
        instead = f"{expected} one of {listed}{more}" if names else "there are none"
        super().__init__(f"unknown {kind} {shortened(repr(given))}: {instead}")


def _containing(given: str, names: Iterable[str]) -> list[str]:
    """The first few names that have `given` as words of theirs, or else as the end or the beginning of one."""
    part, found = re.escape(given.strip().lower()), dict[str, None]()
    for pattern in (rf"\b{part}\b", rf"{part}\b", rf"\b{part}") if len(given.strip()) > 2 else ():
        found |= dict.fromkeys(name for name in names if re.search(pattern, name.lower()))
    return list(found)[:SUGGESTED]


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


class DivergenceWarning(RuntimeWarning):
    """An inversion left latents many times as large as noise."""


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things in words.

    >>> counted(1, "photo"), counted(2, "photo"), counted(0, "entry", "entries")
    ('1 photo', '2 photos', '0 entries')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def shortened(text: str) -> str:
    """`text`, a long one cut."""
    return text if len(text) <= LONG else f"{text[:LONG]}..."


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
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
