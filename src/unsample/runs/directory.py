"""Run directories: a manifest that says everything, tensors, and parts that survive an interruption.

A run is opened with its settings and items. An empty place becomes a new run; a place with the same settings is resumed, part
by part; a place with other settings, or with somebody's files, is refused. Every file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..core.files import write_atomically
from ..errors import RunError, printable
from ..pictures.read import png_bytes

__all__ = ["Item", "Manifest", "Origin", "Part", "Run", "place_of", "short_hash", "slug", "slugs"]

MANIFEST = "manifest.json"
TENSORS = "latents.safetensors"
SLUG_LENGTH = 80


class Item(BaseModel):
    """One picture of a run; its name can be printed."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, BeforeValidator(lambda name: printable(name) if isinstance(name, str) else name)]
    id: str
    width: int
    height: int
    notes: list[str] = []


class Origin(BaseModel):
    """Where a run's model came from, as `unsample.load` takes it; its digest in the settings says whether it is the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    size: tuple[int, int] | None = None
    revision: str | None = None
    variant: str | None = None


class Manifest(BaseModel):
    """What a run is, in JSON."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    command: str
    status: Literal["running", "complete"] = "running"
    created: str
    finished: str | None = None
    settings: dict[str, JsonValue]
    origin: Origin | None = None
    versions: dict[str, str]
    items: list[Item]
    results: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """A name for exactly this run's settings and items, by which a run made of its results names it."""
        return short_hash(self.model_dump_json(include={"settings", "items"}))


@dataclass(frozen=True, eq=False)
class Part:
    """A finished piece of a run: tensors with one row per item, what they cost in all, and on the way up alone."""

    tensors: Mapping[str, Tensor]
    nfe: int
    seconds: float
    nfe_up: int = 0


@dataclass
class Run:
    """An open run directory."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(
        cls,
        path: str | Path,
        command: str,
        settings: Mapping[str, Any],
        items: Sequence[Item],
        origin: Origin | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> Run:
        """A new run, or the same run resumed; `origin` is written down, and may be another when it is resumed.

        Args:
            path: Its folder.
            command: What made it.
            settings: All that its results depend on besides the items, as JSON values.
            items: Its pictures.
            origin: Where its model comes from.
            defaults: The values of settings that a run in `path` may lack, because it was made before they were settings.

        Raises:
            RunError: The place holds something else, or a run with other settings, items or versions.
        """
        path = Path(path)
        manifest = Manifest(
            command=command,
            created=_now(),
            settings=dict(settings),
            origin=origin,
            versions=_versions(),
            items=list(items),
        )
        if path.exists() and not path.is_dir():
            raise RunError(f"expected a folder for the run, given the file {path}; choose another --out")
        if not path.is_dir() or not any(file.name[-5:] != ".part" for file in path.iterdir()):
            run = cls(path, manifest)
            run._write_manifest()
            return run
        if not (path / MANIFEST).is_file():
            raise RunError(f"{path} holds files that are not a run of unsample; choose another --out, or an empty folder")
        run = cls.load(path)
        run._refuse_other(manifest, defaults or {})
        return run

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """An existing run.

        Raises:
            RunError: No run is there, or its manifest is damaged.
        """
        path = Path(path)
        try:
            return cls(path, Manifest.model_validate_json((path / MANIFEST).read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"no run in {path}: expected a folder with a {MANIFEST}") from None
        except (ValidationError, OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise RunError(f"the manifest of {path} is damaged ({first}); delete the folder and run again") from None

    @property
    def complete(self) -> bool:
        """Whether everything is done."""
        return self.manifest.status == "complete"

    def stored(self, key: str) -> Part | None:
        """The part `key` if an earlier attempt finished it; a damaged one counts as not finished."""
        found = _read(self._part_file(key))
        return found and Part(found[0], **found[1])

    def store(self, key: str, part: Part) -> Part:
        """Write a finished part, so that a rerun need not repeat it."""
        _write(self._part_file(key), part.tensors, {"nfe": part.nfe, "seconds": part.seconds, "nfe_up": part.nfe_up})
        return part

    def part(self, key: str, make: Callable[[], Mapping[str, Tensor]]) -> Part:
        """The part `key`: read back if an earlier attempt finished it, made and stored otherwise.

        Among the tensors that `make` gives, `nfe` and `nfe_up` say what each item cost; without them it cost nothing.
        """
        stored = self.stored(key)
        if stored is not None:
            return stored
        began = time.perf_counter()
        tensors = {name: tensor.cpu() for name, tensor in make().items()}
        spent = {name: int(tensors[name].max()) if name in tensors else 0 for name in ("nfe", "nfe_up")}
        return self.store(key, Part(tensors, seconds=time.perf_counter() - began, **spent))

    def finish(self, tensors: Mapping[str, Tensor], results: Mapping[str, Any]) -> None:
        """Write all tensors, mark the run complete, and drop its parts."""
        _write(self.path / TENSORS, tensors, {"items": [item.id for item in self.manifest.items]})
        self.manifest = self.manifest.model_copy(update={"status": "complete", "finished": _now()})
        self.add(results)
        shutil.rmtree(self.path / "parts", ignore_errors=True)

    def add(self, results: Mapping[str, Any]) -> None:
        """Write more results into the manifest."""
        self.manifest = self.manifest.model_copy(update={"results": {**self.manifest.results, **results}})
        self._write_manifest()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a complete run.

        Raises:
            RunError: The run is not complete, or the file is damaged.
        """
        if not self.complete:
            raise RunError(f"the run in {self.path} is not complete; give the same command again to finish it")
        found = _read(self.path / TENSORS)
        if found is None:
            raise RunError(f"{self.path / TENSORS} is missing or damaged; delete the folder and run again")
        tensors, header = found
        if header.get("items") != [item.id for item in self.manifest.items]:
            raise RunError(f"{self.path / TENSORS} does not belong to this manifest; delete the folder and run again")
        return tensors

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file of the run; whole or not at all."""
        path = self.path / name
        write_atomically(path, data.encode() if isinstance(data, str) else data)
        return path

    def write_images(self, folder: str, images: Tensor) -> None:
        """Each item's picture, [-1, 1], as a PNG file of `folder` that is called after it."""
        for index, (item, image) in enumerate(zip(self.manifest.items, images, strict=True)):
            self.write(f"{folder}/{index:04d}-{slug(Path(item.name).stem)}.png", png_bytes(image))

    def _part_file(self, key: str) -> Path:
        return self.path / "parts" / f"{key}.safetensors"

    def _write_manifest(self) -> None:
        self.write(MANIFEST, self.manifest.model_dump_json(indent=2))

    def _refuse_other(self, wanted: Manifest, defaults: Mapping[str, Any]) -> None:
        """Refuse to mix two different runs in one folder, naming the first difference."""
        ours, theirs = self.manifest, wanted
        if ours.command != theirs.command:
            raise RunError(f"{self.path} holds a run of {ours.command!r}, not {theirs.command!r}; choose another --out")
        before: dict[str, Any] = {**defaults, **ours.settings}
        pairs = {
            **{name: (value, theirs.settings.get(name)) for name, value in before.items()},
            "items": ([item.id for item in ours.items], [item.id for item in theirs.items]),
            **{f"version of {name}": (ours.versions.get(name), theirs.versions[name]) for name in ("unsample", "torch")},
        }
        for name, (there, now) in pairs.items():
            if there != now:
                shown = "" if name == "items" else f": {there!r} there, {now!r} asked for"
                raise RunError(f"the run in {self.path} was made with other {name}{shown}; choose another --out or delete it")


def place_of(out: Path | None, command: str, *texts: str) -> Path:
    """Where a run goes: `out`, or a folder named after the texts that say what it is, so that a rerun finds it.

    >>> place_of(None, "sample", "seed 0").as_posix()
    'runs/sample-2f5c36ed'
    """
    return out or Path("runs") / f"{command}-{short_hash(*texts)}"


def short_hash(*texts: str) -> str:
    """A name for what these texts say, 8 hexadecimal digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]


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


def _write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(ready, metadata={"unsample": json.dumps(header)}))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and header of a file, or None if it is missing or not whole."""
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["unsample"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _versions() -> dict[str, str]:
    names = ("unsample", "torch", "diffusers", "safetensors", "numpy", "pillow")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
