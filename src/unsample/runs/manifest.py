"""The manifest of a run: what it is, in JSON, with a digest of each of its files and of itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from ..core.reading import json_of
from ..errors import SUGGESTED, RunError, one_line, printable
from ..pictures.find import is_picture

MANIFEST = "manifest.json"

HOW = ("batch_size", "device")
"""Settings that say how a run was worked on, not what it is: they are recorded, and a run may go on with others.

What comes out differs by the rounding of floating point numbers alone.
"""


class Item(BaseModel):
    """One picture of a run; its name can be printed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, BeforeValidator(lambda name: printable(name) if isinstance(name, str) else name)]
    id: str
    width: int
    height: int
    notes: list[str] = []


class Origin(BaseModel):
    """Where a run's model came from, as `unsample.load` takes it; its digest in the settings says whether it is the same."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: str
    size: tuple[int, int] | None = None
    revision: str | None = None
    variant: str | None = None


class Manifest(BaseModel):
    """What a run is, in JSON.

    Attributes:
        format: 1 in runs of versions that kept no digests, where there is nothing to check; 2 in all that are written now.
        drawn: Whether its pictures and pages were written after it was complete.
        files: The SHA-256 of each file of a complete run; None in format 1.
        digest: That of the rest of the manifest, likewise.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1, 2] = 2
    command: str
    status: Literal["running", "complete"] = "running"
    created: str
    finished: str | None = None
    settings: dict[str, JsonValue]
    origin: Origin | None = None
    versions: dict[str, str]
    items: list[Item]
    results: dict[str, JsonValue] = Field(default_factory=dict)
    drawn: bool = False
    files: dict[str, str] | None = None
    digest: str | None = None

    @classmethod
    def read(cls, data: bytes) -> Manifest:
        """The manifest that a file holds.

        Raises:
            RunError: It is damaged, or was edited since it was written.
        """
        try:
            plain = json_of(data)
            made = cls.model_validate_json(data)
        except ValidationError as error:
            raise RunError(first_fault(error)) from None
        except ValueError as error:
            raise RunError(one_line(error)) from None
        if (made.format > 1 or made.digest is not None) and made.digest != own_digest(plain):
            raise RunError("it is not what was written")
        return made

    @property
    def text(self) -> str:
        """What is written: JSON, its own digest last."""
        plain = {**json.loads(self.model_dump_json(exclude={"digest"})), "format": 2}
        return json.dumps({**plain, "digest": own_digest(plain)}, indent=2, ensure_ascii=False)

    def difference(self, other: Manifest, defaults: Mapping[str, Any]) -> str:
        """The first of what makes `other` another run than this, for people; "" for the same run.

        Settings that this run lacks count as their `defaults`.
        """
        before, after = identity({**defaults, **self.settings}), identity(other.settings)
        pairs = {
            **{name: (before.get(name), after.get(name)) for name in {**before, **after}},
            "items": ([item.id for item in self.items], [item.id for item in other.items]),
            **{f"version of {name}": (self.versions.get(name), other.versions[name]) for name in ("unsample", "torch")},
        }
        for name, (there, now) in pairs.items():
            if there != now:
                return name if name == "items" else f"{name}: {there!r} there, {now!r} asked for"
        return ""

    @property
    def key(self) -> str:
        """A name for exactly this run's settings and items, by which a run made of its results names it."""
        return short_hash(self.model_dump_json(include={"settings", "items"}))

    @property
    def costs(self) -> dict[str, dict[str, int | float]]:
        """What each start, or each candidate, cost; nothing if that is not what the results say."""
        try:
            return TypeAdapter(dict[str, dict[str, int | float]]).validate_python(self.results.get("cost", {}))
        except ValidationError:
            return {}


def no_run(place: Path) -> str:
    """Why there is no run in `place`, for people; of a folder of runs it names the newest."""
    if not place.is_dir():
        if not place.is_file():
            return f"no run in {place}: there is no such folder"
        if is_picture(place):
            return f"no run in {place}: that is a picture; `unsample invert {place}` comes first, and makes a run of it"
    runs: list[Path] = []
    with contextlib.suppress(OSError):
        runs = sorted(place.glob(f"*/{MANIFEST}"), key=lambda file: file.stat().st_mtime, reverse=True)
    meant = f"; did you mean {' or '.join(str(file.parent) for file in runs[:SUGGESTED])}?" if runs else ""
    return f"no run in {place}: expected a folder with a {MANIFEST}{meant}"


def first_fault(error: ValidationError) -> str:
    """Where the first fault of data from a file is, and what, in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    return one_line(ValueError(": ".join([".".join(map(str, first["loc"])), first["msg"]]).removeprefix(": ")))


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which a run is the same."""
    return {name: value for name, value in settings.items() if name not in HOW}


def short_hash(*texts: str) -> str:
    """A name for what these texts say, 8 hexadecimal digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]


def versions() -> dict[str, str]:
    """Versions of all that numbers depend on, and the number of threads."""
    names = ("unsample", "torch", "diffusers", "safetensors", "numpy", "pillow")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


def now() -> str:
    """The time, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def own_digest(plain: Mapping[str, Any]) -> str:
    """The SHA-256 of what a file says besides its `digest`."""
    rest = {name: value for name, value in plain.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
