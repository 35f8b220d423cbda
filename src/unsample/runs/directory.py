"""Run directories: a manifest that says everything, tensors, and parts that survive an interruption.

A run is opened with its settings and items. An empty place becomes a new run; a place with the same settings is resumed, part
by part; a place with other settings, or with somebody's files, is refused. Every file appears whole or not at all, and its
digest is kept: a file that was damaged since is noticed when it is read, and made again when the command is given again.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from typing_extensions import TypedDict

from ..core.files import inside, write_atomically
from ..errors import RunError
from ..pictures.read import png_bytes
from .manifest import HOW, MANIFEST, Item, Manifest, Origin, identity, short_hash
from .tensor_file import read_tensors, tensor_bytes

TENSORS = "latents.safetensors"
SLUG_LENGTH = 80


@dataclass(frozen=True, eq=False)
class Part:
    """A finished piece of a run: tensors with one row per item, what they cost in all, and on the way up alone.

    `files` are the digests of files that were written with it.
    """

    tensors: Mapping[str, Tensor]
    nfe: int
    seconds: float
    nfe_up: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many items it is of."""
        return len(next(iter(self.tensors.values()), ()))


class _Header(TypedDict, total=False):
    """What the file of a part says besides its tensors."""

    nfe: int
    seconds: float
    nfe_up: int
    files: dict[str, str]


@dataclass
class Run:
    """An open run directory.

    Attributes:
        path: Its folder.
        manifest: What it is.
        files: The digest of each file that was written, besides the manifest and the parts.
        drawn: Whether its pictures and pages are there, as they were written.
    """

    path: Path
    manifest: Manifest
    files: dict[str, str] = field(default_factory=dict)
    drawn: bool = False

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

        A complete run whose tensors are missing or damaged counts as not complete, so that they are made again.

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
        try:
            taken = path.is_dir() and any(file.name[-5:] != ".part" for file in path.iterdir())
        except OSError as error:
            raise RunError(f"cannot read the folder {path}: {error.strerror}; choose another --out") from None
        if path.exists() and not path.is_dir():
            raise RunError(f"expected a folder for the run, given the file {path}; choose another --out")
        if not taken:
            run = cls(path, manifest)
            run._write_manifest()
            return run
        if not (path / MANIFEST).is_file():
            raise RunError(f"{path} holds files that are not a run of unsample; choose another --out, or an empty folder")
        run = cls.load(path)
        run._refuse_other(manifest, defaults or {})
        run._resume(manifest)
        return run

    @classmethod
    def load(cls, path: str | Path) -> Run:
        """An existing run.

        Raises:
            RunError: No run is there, or its manifest is damaged.
        """
        path = Path(path)
        try:
            manifest = Manifest.read(inside(path, MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(f"no run in {path}: expected a folder with a {MANIFEST}") from None
        except OSError as error:
            raise RunError(f"cannot read {path / MANIFEST}: {error.strerror}") from None
        except RunError as error:
            raise RunError(f"the manifest of {path} is damaged ({error}); delete the folder and run again") from None
        return cls(path, manifest, dict(manifest.files or {}), manifest.drawn)

    @property
    def complete(self) -> bool:
        """Whether everything is done."""
        return self.manifest.status == "complete"

    def stored(self, key: str, rows: int | None = None) -> Part | None:
        """The part `key` if an earlier attempt finished it; not one that is damaged, or of another number of `rows`."""
        found = read_tensors(inside(self.path, self._part_file(key)))
        try:
            part = Part(found[0], **TypeAdapter(_Header).validate_python(found[1])) if found else None
        except ValidationError:
            return None
        if part is None or (rows is not None and part.rows != rows):
            return None
        if any(self._differs(name, digest) for name, digest in part.files.items()):
            return None
        self.files |= part.files
        return part

    def store(self, key: str, part: Part) -> Part:
        """Write a finished part, so that a rerun need not repeat it."""
        header = {"nfe": part.nfe, "seconds": part.seconds, "nfe_up": part.nfe_up, "files": dict(part.files)}
        write_atomically(inside(self.path, self._part_file(key)), tensor_bytes(part.tensors, header))
        return part

    def part(self, key: str, make: Callable[[], Mapping[str, Tensor]], rows: int | None = None) -> Part:
        """The part `key`: read back if an earlier attempt finished it, made and stored otherwise.

        Among the tensors that `make` gives, `nfe` and `nfe_up` say what each item cost; without them it cost nothing.
        """
        stored = self.stored(key, rows)
        if stored is not None:
            return stored
        began, before = time.perf_counter(), dict(self.files)
        tensors = {name: tensor.cpu() for name, tensor in make().items()}
        spent = {name: int(tensors[name].max()) if name in tensors else 0 for name in ("nfe", "nfe_up")}
        files = {name: digest for name, digest in self.files.items() if before.get(name) != digest}
        return self.store(key, Part(tensors, seconds=time.perf_counter() - began, **spent, files=files))

    def tiles(self, prefix: str, count: int, size: int) -> list[tuple[str, slice]]:
        """The parts that cover `count` items, by key: `prefix` and the first row.

        A part that an earlier attempt finished stays as it is, whatever the size of its batches was; what is missing between
        them is cut into batches of at most `size`.
        """
        names = [file.name.removesuffix(".safetensors") for file in (self.path / "parts").glob("*.safetensors")]
        numbers = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        found = {int(number): f"{prefix}{number}" for number in numbers if re.fullmatch(r"[0-9]{6}", number)}
        done = {first: part.rows for first, key in found.items() if (part := self.stored(key))}
        tiles, first = [], 0
        while first < count:
            after = min([start for start in done if start > first] + [first + size, count])
            stop = first + done[first] if 0 < done.get(first, 0) <= count - first else after
            tiles.append((f"{prefix}{first:06d}", slice(first, stop)))
            first = stop
        return tiles

    def finish(self, tensors: Mapping[str, Tensor], results: Mapping[str, Any]) -> None:
        """Write all tensors, if there are any; mark the run complete, and drop its parts."""
        if tensors:
            self.write(TENSORS, tensor_bytes(tensors, {"items": [item.id for item in self.manifest.items]}))
        self.manifest = self.manifest.model_copy(update={"status": "complete", "finished": _now()})
        self.add(results)
        with contextlib.suppress(RunError):  # a link that leads elsewhere is left as it is
            shutil.rmtree(inside(self.path, "parts"), ignore_errors=True)

    def add(self, results: Mapping[str, Any]) -> None:
        """Write more results into the manifest."""
        self.manifest = self.manifest.model_copy(update={"results": {**self.manifest.results, **results}})
        self._write_manifest()

    def draw(self, drawing: Callable[[], object]) -> None:
        """Write the pictures and pages of a complete run by `drawing`, unless they are all there as they were written."""
        if self.drawn:
            return
        drawing()
        self.manifest, self.drawn = self.manifest.model_copy(update={"drawn": True}), True
        self._write_manifest()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a complete run.

        Raises:
            RunError: The run is not complete, or the file is damaged.
        """
        if not self.complete:
            raise RunError(f"the run in {self.path} is not complete; give the same command again to finish it")
        found = read_tensors(self.checked(TENSORS))
        if found is None:
            raise RunError(_repair(self.path / TENSORS))
        tensors, header = found
        if header.get("items") != [item.id for item in self.manifest.items]:
            raise RunError(f"{self.path / TENSORS} does not belong to this manifest; delete the folder and run again")
        return tensors

    def checked(self, name: str) -> Path:
        """The path of a file of the run, to be read.

        Raises:
            RunError: It is missing, or not what was written.
        """
        path = inside(self.path, name)
        if not path.is_file() or (name in self.files and self._differs(name, self.files[name])):
            raise RunError(_repair(path))
        return path

    def write(self, name: str, data: bytes | str) -> Path:
        """Write a file of the run; whole or not at all."""
        path, data = inside(self.path, name), data.encode() if isinstance(data, str) else data
        write_atomically(path, data)
        self.files[name] = hashlib.sha256(data).hexdigest()
        return path

    def write_images(self, folder: str, images: Tensor) -> None:
        """Each item's picture, [-1, 1], as a PNG file of `folder` that is called after it."""
        for index, (item, image) in enumerate(zip(self.manifest.items, images, strict=True)):
            self.write(f"{folder}/{index:04d}-{slug(Path(item.name).stem)}.png", png_bytes(image))

    def _part_file(self, key: str) -> str:
        return f"parts/{key}.safetensors"

    def _digests(self) -> dict[str, str]:
        """Those of the files of tensors that are there, but of runs and parts within."""
        files = [*self.path.glob("*.safetensors"), *self.path.glob("trajectories/*.safetensors")]
        names = [file.relative_to(self.path).as_posix() for file in files]
        return {name: hashlib.sha256(inside(self.path, name).read_bytes()).hexdigest() for name in names}

    def _differs(self, name: str, digest: str) -> bool:
        """Whether a file is missing, or not what was written."""
        path = inside(self.path, name)
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() != digest
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return True
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from None

    def _write_manifest(self) -> None:
        self.manifest = self.manifest.model_copy(update={"files": dict(self.files) if self.complete else None})
        write_atomically(inside(self.path, MANIFEST), self.manifest.text.encode())

    def _resume(self, wanted: Manifest) -> None:
        """Go on: a complete run without its tensors is one to be made again, one without its pictures to be drawn again."""
        if self.complete:
            bad = [name for name, digest in self.files.items() if self._differs(name, digest)]
            if self.manifest.files is None:  # of an older version: what can be read is taken as it is
                bad = [] if read_tensors(inside(self.path, TENSORS)) else [TENSORS]
                self.files = {} if bad else self._digests()
            drawn_again = TENSORS in self.files and not any(name.endswith(".safetensors") for name in bad)
            if not bad or drawn_again:
                self.drawn = self.drawn and not bad
                return
        how = {name: wanted.settings[name] for name in HOW if name in wanted.settings}
        fresh: dict[str, Any] = {"status": "running", "finished": None, "drawn": False, "results": {}}
        self.manifest = self.manifest.model_copy(update={**fresh, "settings": {**self.manifest.settings, **how}})
        self.files, self.drawn = {}, False

    def _refuse_other(self, wanted: Manifest, defaults: Mapping[str, Any]) -> None:
        """Refuse to mix two different runs in one folder, naming the first difference."""
        ours, theirs = self.manifest, wanted
        if ours.command != theirs.command:
            raise RunError(f"{self.path} holds a run of {ours.command!r}, not {theirs.command!r}; choose another --out")
        before, after = identity({**defaults, **ours.settings}), identity(theirs.settings)
        pairs = {
            **{name: (before.get(name), after.get(name)) for name in {**before, **after}},
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


def _repair(path: Path) -> str:
    return f"{path} is missing or damaged; give the command that made the run again, which makes it anew"


def _versions() -> dict[str, str]:
    names = ("unsample", "torch", "diffusers", "safetensors", "numpy", "pillow")
    return {name: version(name) for name in names} | {
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
