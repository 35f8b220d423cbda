"""Run directories: a manifest that says everything, tensors, and parts that survive an interruption.

A run is opened with its settings and items. An empty place becomes a new run; a place with the same settings is resumed, part
by part; a place with other settings, or with somebody's files, is refused. Every file appears whole or not at all, and its
digest is kept: a file that was damaged since is noticed when it is read, and made again when the command is given again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.files import ABSENT, inside, regular, write_atomically
from ..core.reading import read_bytes
from ..errors import RunError
from ..pictures.read import Rejected, png_bytes
from .manifest import HOW, MANIFEST, Item, Manifest, Origin, no_run, now, versions
from .names import slug
from .tensor_file import Part, read_tensors, tensor_bytes

TENSORS = "latents.safetensors"


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
    manifest: Manifest = field(repr=False)
    files: dict[str, str] = field(default_factory=dict, repr=False)
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
            created=now(),
            settings=dict(settings),
            origin=origin,
            versions=versions(),
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
            manifest = Manifest.read(read_bytes(inside(path, MANIFEST)))
        except (FileNotFoundError, NotADirectoryError):
            raise RunError(no_run(path)) from None
        except OSError as error:
            raise RunError(f"cannot read {path / MANIFEST}: {error.strerror}") from None
        except (RunError, ValueError) as error:
            raise RunError(f"the manifest of {path} is damaged ({error}); delete the folder and run again") from None
        return cls(path, manifest, dict(manifest.files or {}), manifest.drawn)

    @property
    def complete(self) -> bool:
        """Whether everything is done."""
        return self.manifest.status == "complete"

    def stored(self, key: str, rows: int | None = None) -> Part | None:
        """The part `key` if an earlier attempt finished it; not one that is damaged, or of another number of `rows`."""
        part = Part.read(inside(self.path, self._part_file(key)), signed=self.manifest.format > 1)
        if part is None or (rows is not None and part.rows != rows):
            return None
        if any(self._differs(name, digest) for name, digest in part.files.items()):
            return None
        self.files |= part.files
        return part

    def store(self, key: str, part: Part) -> Part:
        """Write a finished part, so that a rerun need not repeat it."""
        write_atomically(inside(self.path, self._part_file(key)), part.to_bytes())
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
        keys = {int(number): f"{prefix}{number}" for number in numbers if re.fullmatch(r"[0-9]{6}", number)}
        done = {first: part.rows for first, key in keys.items() if (part := self.stored(key))}
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
        self.manifest = self.manifest.model_copy(update={"status": "complete", "finished": now()})
        self.add(results)
        with contextlib.suppress(RunError):  # a link that leads elsewhere is left as it is
            shutil.rmtree(inside(self.path, "parts"), ignore_errors=True)

    def add(self, results: Mapping[str, Any]) -> None:
        """Write more results into the manifest."""
        self.manifest = self.manifest.model_copy(update={"results": {**self.manifest.results, **results}})
        self._write_manifest()

    def reject(self, rejected: Sequence[Rejected], *, shown: bool = False) -> None:
        """List the pictures that were left out, and why, among the results; pages with them `shown` are drawn again."""
        listed = [asdict(one) for one in rejected]
        if listed != self.manifest.results.get("rejected", []):
            self.drawn = self.drawn and not shown
            self.add({"rejected": listed})

    def draw(self, drawing: Callable[[], object]) -> None:
        """Write the pictures and pages of a complete run by `drawing`, unless they are all there as they were written."""
        if self.drawn:
            return
        drawing()
        self.drawn = True
        self._write_manifest()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a complete run.

        Raises:
            RunError: The run is not complete, or the file is damaged.
        """
        if not self.complete:
            raise RunError(f"the run in {self.path} is not complete; give the same command again to finish it")
        content = read_tensors(self.checked(TENSORS))
        if content is None:
            raise RunError(_repair(self.path / TENSORS))
        tensors, header = content
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
        names = [file.relative_to(self.path).as_posix() for file in files if file.is_file()]
        return {name: hashlib.sha256(inside(self.path, name).read_bytes()).hexdigest() for name in names}

    def _differs(self, name: str, digest: str) -> bool:
        """Whether a file is missing, or not what was written."""
        path = inside(self.path, name)
        try:
            with regular(path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() != digest
        except ABSENT:
            return True
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from None

    def _write_manifest(self) -> None:
        self.manifest = self.manifest.model_copy(
            update={"files": dict(self.files) if self.complete else None, "drawn": self.drawn}
        )
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
        fresh: dict[str, Any] = {"status": "running", "finished": None, "results": {}}
        self.manifest = self.manifest.model_copy(update={**fresh, "settings": {**self.manifest.settings, **how}})
        self.files, self.drawn = {}, False

    def _refuse_other(self, wanted: Manifest, defaults: Mapping[str, Any]) -> None:
        """Refuse to mix two different runs in one folder, naming the first difference."""
        ours = self.manifest
        if ours.command != wanted.command:
            raise RunError(f"{self.path} holds a run of {ours.command!r}, not {wanted.command!r}; choose another --out")
        if difference := ours.difference(wanted, defaults):
            raise RunError(f"the run in {self.path} was made with other {difference}; choose another --out or delete it")


def _repair(path: Path) -> str:
    return f"{path} is missing or damaged; give the command that made the run again, which makes it anew"
