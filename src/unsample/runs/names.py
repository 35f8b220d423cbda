"""Names of run directories and of the files in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from .manifest import short_hash

SLUG_LENGTH = 80


def place_of(out: Path | None, command: str, *texts: str) -> Path:
    """Where a run goes: `out`, or a folder named after the texts that say what it is, so that a rerun finds it.

    >>> place_of(None, "sample", "seed 0").as_posix()
    'runs/sample-2f5c36ed'
    """
    return out or Path("runs") / f"{command}-{short_hash(*texts)}"


def slug(text: str) -> str:
    """`text` as a safe part of a file name; a long one is cut and ends in a hash of the whole.

    >>> slug("../my photo.jpg"), slug("4%"), slug("sigma=0.1")
    ('my-photo.jpg', '4pc', 'sigma-0.1')
    >>> slug("a" * 80) == "a" * 80, slug("a" * 81)[69:]
    (True, 'aa-8c48280d')
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text.replace("%", "pc")).strip("-.") or "unnamed"
    return safe if len(safe) <= SLUG_LENGTH else _hashed(safe, text)


def slugs(texts: Iterable[str]) -> dict[str, str]:
    """Text -> its `slug`, with a hash of the text where several texts would have the same, also without regard to case.

    >>> slugs(["a b", "a-b", "c"])
    {'a b': 'a-b-c8687a08', 'a-b': 'a-b-d44362d6', 'c': 'c'}
    """
    safe = {text: slug(text) for text in texts}
    count = Counter(name.casefold() for name in safe.values())
    return {text: name if count[name.casefold()] == 1 else _hashed(name, text) for text, name in safe.items()}


def _hashed(name: str, text: str) -> str:
    return f"{name[: SLUG_LENGTH - 9]}-{short_hash(text)}"
