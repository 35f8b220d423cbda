"""The folder of PIE-Bench: `mapping_file.json`, and pictures below `annotation_images/`.

The file maps a key to a picture, two prompts and a mask as runs of (start, length) over the flattened picture. Nothing in it
is trusted: paths stay inside the folder, and an entry that cannot be read is reported in one line and left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor

from ...core.files import expanded
from ...core.reading import read_json
from ...errors import ArgumentError, ImageError, UnsampleError, printable
from ...pictures.read import read_photo

MAPPING = "mapping_file.json"
IMAGES = "annotation_images"


@dataclass(frozen=True)
class Failure:
    """An entry, or an edit of one, that is left out, and why.

    Attributes:
        key: Of the entry.
        reason: One line.
        row: The edit that failed; empty if the entry could not be read.
    """

    key: str
    reason: str
    row: str = ""

    def __str__(self) -> str:
        return printable(f"{self.key}{f', {self.row}' if self.row else ''}: {self.reason}")


@dataclass(frozen=True)
class Entry:
    """One edit.

    Attributes:
        key: Its name in the mapping file.
        path: Its picture, inside the folder.
        source_prompt: Of the picture as it is, with [brackets] round the edited words.
        target_prompt: Of the picture as it should be.
        instruction: The edit in words.
        kind: `editing_type_id`, "0" to "9" in the published set.
        blended_word: The words of both prompts that are exchanged, as they stand in the file.
        runs: The edited region, start and length in turn.
    """

    key: str
    path: Path
    source_prompt: str
    target_prompt: str
    instruction: str = ""
    kind: str = ""
    blended_word: str = ""
    runs: tuple[Any, ...] = field(default=(), repr=False)

    def load(
        self, size: tuple[int, int] | None = None, *, border: bool = True, cut: bool = False
    ) -> tuple[Float[Tensor, "1 3 height width"], Bool[Tensor, "1 height width"]]:
        """The picture in [-1, 1] and its edited region.

        Args:
            size: Height and width to centre-crop and average to; None is the picture's own.
            border: As `decode_mask`, which is applied at the picture's own size.
            cut: As `decode_mask`.

        Raises:
            ImageError: A picture that cannot be read, or is smaller than `size`.
            ArgumentError: A mask that does not fit it.
        """
        width, height = read_photo(self.path, (1, 1)).original
        photo = read_photo(self.path, size or (height, width))
        mask = decode_mask(self.runs, (height, width), border=border, cut=cut)
        if size is not None and size != (height, width):  # averaged as the picture is
            grey = Image.fromarray(mask.numpy().astype(np.uint8) * 255)
            fitted = ImageOps.fit(grey, (size[1], size[0]), Image.Resampling.BOX)
            mask = torch.from_numpy(np.array(fitted)) >= 128
        return photo.pixels[None], mask[None]


@dataclass(frozen=True)
class Layout:
    """The entries of a folder, and those that could not be read."""

    entries: tuple[Entry, ...]
    failed: tuple[Failure, ...] = ()


def read_layout(folder: str | Path, *, kinds: Collection[str] | None = None, limit: int | None = None) -> Layout:
    """The entries of a folder, in the order of its mapping file. Pictures and masks are read when an entry is loaded.

    Args:
        folder: With `mapping_file.json` and `annotation_images/`.
        kinds: Only entries whose `editing_type_id` is one of these.
        limit: At most so many entries.

    Raises:
        ArgumentError: A mapping file that is missing, or is not JSON of the form {key: {...}}.
    """
    root = expanded(folder)
    entries: list[Entry] = []
    failed: list[Failure] = []
    for key, given in _mapping(root / MAPPING).items():
        if limit is not None and len(entries) == limit:
            break
        if kinds is not None and not (isinstance(given, dict) and str(given.get("editing_type_id")) in kinds):
            continue
        try:
            entries.append(_entry(root, key, given))
        except UnsampleError as error:
            failed.append(Failure(key, str(error)))
    return Layout(tuple(entries), tuple(failed))


def decode_mask(
    runs: Sequence[Any], shape: tuple[int, int], *, border: bool = True, cut: bool = False
) -> Bool[Tensor, "height width"]:
    """The edited region, from runs over the picture flattened row by row.

    Args:
        runs: Start and length in turn; runs may overlap.
        shape: Height and width.
        border: Count the outermost pixels as edited, as the published evaluation does against errors of annotation there.
        cut: Cut runs that reach beyond the end, as the published evaluation does; else they are refused, because they mean
            a mask that was made for another size.

    Raises:
        ArgumentError: An odd number of values, values that are not whole numbers, negative ones, or runs beyond the end.

    >>> decode_mask([4, 2], (3, 4), border=False).int().tolist()
    [[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    """
    height, width = shape
    if len(runs) % 2:
        raise ArgumentError(f"mask: expected pairs of start and length, given {len(runs)} values; check the mapping file")
    if bad := [value for value in runs if type(value) is not int or value < 0]:
        raise ArgumentError(f"mask: expected whole numbers from 0 up, given {str(bad[0])[:40]!r}; check the mapping file")
    size = height * width
    ends = [start + length for start, length in zip(runs[::2], runs[1::2], strict=True)]
    if not cut and max([*ends, *runs[::2]], default=0) > size:
        raise ArgumentError(
            f"mask: a run reaches pixel {max(ends)} of {size} ({height}x{width}); was it made for another size? "
            "cut=True cuts it, as the published evaluation does"
        )
    starts = [min(start, size) for start in runs[::2]]
    steps = np.zeros(size + 1, dtype=np.int64)  # of the number of runs that a pixel lies in: linear, however they overlap
    np.add.at(steps, starts, 1)
    np.add.at(steps, [min(end, size) for end in ends], -1)
    mask = torch.from_numpy(steps[:-1].cumsum() > 0).reshape(height, width)
    if border:
        mask[[0, -1]] = True
        mask[:, [0, -1]] = True
    return mask


def encode_mask(mask: Bool[Tensor, "height width"]) -> list[int]:
    """The runs of a mask, start and length in turn.

    >>> encode_mask(torch.tensor([[False, True, True], [True, False, True]]))
    [1, 3, 5, 1]
    """
    edges = np.flatnonzero(np.diff(mask.cpu().numpy().reshape(-1).astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    runs: list[int] = np.stack([edges[:, 0], edges[:, 1] - edges[:, 0]], axis=1).reshape(-1).tolist()
    return runs


def without_brackets(prompt: str) -> str:
    """A prompt without the brackets round the edited words, as a network is given it.

    >>> without_brackets("a photo of a [goldfish]")
    'a photo of a goldfish'
    """
    return prompt.replace("[", "").replace("]", "")


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ArgumentError(f"cannot read {path}: not a regular file; expected a folder in the layout of PIE-Bench")
        mapping = read_json(path)
    except OSError as error:
        raise ArgumentError(f"cannot read {path}: {error.strerror}; expected a folder in the layout of PIE-Bench") from None
    except ArgumentError:
        raise
    except ValueError as error:
        reason = " ".join(str(error).split())[:100]
        raise ArgumentError(f"{path} is not JSON ({reason}); expected {{key: {{image_path, original_prompt, ...}}}}") from None
    if not isinstance(mapping, dict):
        raise ArgumentError(f"{path} holds a {type(mapping).__name__}; expected {{key: {{image_path, original_prompt, ...}}}}")
    return mapping


def _entry(root: Path, key: str, given: Any) -> Entry:
    if not isinstance(given, dict):
        raise ArgumentError(f"expected an object with image_path, prompts and mask, given {type(given).__name__}")
    texts = {name: given.get(name) for name in ("image_path", "original_prompt", "editing_prompt")}
    for name, value in texts.items():
        if not isinstance(value, str) or not value:
            raise ArgumentError(f"{name}: expected text, given {str(value)[:40]!r}")
    runs = given.get("mask")
    if not isinstance(runs, list):
        raise ArgumentError(f"mask: expected a list of starts and lengths, given {type(runs).__name__}")
    optional = ("editing_instruction", "editing_type_id", "blended_word")
    instruction, kind, word = ("" if given.get(name) is None else str(given[name]) for name in optional)
    image, source, target = map(str, texts.values())
    return Entry(key, _inside(root / IMAGES, image), source, target, instruction, kind, word, tuple(runs))


def _inside(folder: Path, given: str) -> Path:
    """A path of the mapping file, checked to stay inside the folder, also where it follows links."""
    relative = PurePosixPath(given)
    if relative.is_absolute() or PureWindowsPath(given).anchor or ".." in {*relative.parts, *PureWindowsPath(given).parts}:
        raise ImageError(f"image_path: expected a path inside {IMAGES}, given {given!r}")
    try:
        path = (folder / relative).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, a name that is too long, a circle of links
        raise ImageError(f"image_path: {given[:60]!r} is no path ({str(error)[:60]})") from None
    if not path.is_relative_to(folder.resolve()):
        raise ImageError(f"image_path: {given!r} leads out of {IMAGES} by a link")
    return path
