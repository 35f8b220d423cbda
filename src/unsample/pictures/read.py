"""Reads photographs, at the size of a model, and writes pictures.

Reading says what it did to a picture. One that cannot be read, or has too few pixels, is refused with one line; where many are
read, those that cannot be are left out and listed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, ImageOps
from torch import Tensor

from .._arguments import one_of, sides, takes
from ..core.files import write_atomically
from ..errors import ImageError, printable
from .decode import file_bytes, grey, open_picture, readable, upright_rgb
from .find import distinct_names, find_in
from .parquet import column_of

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, eq=False)
class Photo:
    """One picture, ready for a model.

    Attributes:
        name: That of its file, with as many folders before it as tell it from others of the same name.
        id: Hash of the file's bytes; what its noise depends on, wherever the file lies.
        pixels: Shape (3, height, width) in [-1, 1].
        original: Width and height before resizing.
        notes: What was converted, for messages.
    """

    name: str
    id: str
    pixels: Tensor = field(repr=False)
    original: tuple[int, int]
    notes: tuple[str, ...] = ()

    @property
    def reduced(self) -> str:
        """Whether it was cropped, reduced or both, from which size and to which; "" if neither.

        >>> [Photo("a.png", "0", torch.zeros(3, 32, 32), size).reduced for size in ((640, 480), (64, 64), (40, 32), (32, 32))]
        ['cropped and reduced from 640x480 to 32x32', 'reduced from 64x64 to 32x32', 'cropped from 40x32 to 32x32', '']
        """
        (wide, high), (height, width) = self.original, self.pixels.shape[1:]
        how = ["cropped"] * (wide * height != high * width) + ["reduced"] * (min(wide / width, high / height) != 1)
        return f"{' and '.join(how)} from {wide}x{high} to {width}x{height}" if how else ""

    @classmethod
    def of(cls, image: Tensor, name: str) -> Photo:
        """A tensor of shape (channels, height, width) as a photo; its id is a hash of its values."""
        pixels = image.detach().cpu().to(torch.promote_types(image.dtype, torch.float32)).contiguous()
        key = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
        return cls(name, key, pixels, (pixels.shape[2], pixels.shape[1]))


def demo_photos() -> list[Path]:
    """The photographs that ship with unsample; authors and licences are in photos/README.md."""
    return sorted((Path(__file__).parent / "photos").glob("*.jpg"))


@dataclass(frozen=True)
class Rejected:
    """A picture that is left out, and why in one line."""

    name: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """What was read of files and folders.

    Attributes:
        photos: In the order given.
        rejected: Those that cannot be read.
        passed_over: Names of files in folders that are no pictures.
    """

    photos: list[Photo]
    rejected: list[Rejected] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    @property
    def left_out(self) -> list[str]:
        """The names of those that cannot be read."""
        return [one.name for one in self.rejected]


def read_photo(path: str | Path, size: Size, name: str | None = None) -> Photo:
    """One picture, centre-cropped and area-averaged to `size` (height, width); called `name`, or else as its file is.

    Raises:
        ImageError: Missing, unreadable, of data of unknown range, or smaller than `size`.
    """
    return decode_photo(file_bytes(path), str(path), size, Path(path).name if name is None else name)


def decode_photo(data: bytes, place: str, size: Size, name: str | None = None) -> Photo:
    """`read_photo` for the bytes of a file; `place` is what errors call it."""
    with readable(place), open_picture(data) as opened:
        pixels, original, notes = fitted(opened, place, size)
    key = hashlib.sha256(data).hexdigest()[:16]
    return Photo(printable(Path(place).name if name is None else name), key, pixels, original, notes)


def fitted(picture: Image.Image, name: str, size: Size) -> tuple[Tensor, tuple[int, int], tuple[str, ...]]:
    """The pixels of an opened picture at `size`, its own width and height, and what was converted.

    Raises:
        ImageError: As `read_photo`.
    """
    with readable(name):
        image, notes = upright_rgb(picture, name)
    height, width = size
    if image.width < width or image.height < height:
        raise ImageError(
            f"{name} is {image.width}x{image.height} pixels, smaller than the model's {width}x{height}; give a larger picture"
        )
    small = ImageOps.fit(image, (width, height), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()
    return pixels, image.size, tuple(notes)


def read_mask(path: str | Path, size: Size) -> Bool[Tensor, "height width"]:
    """A grey picture as a mask of `size` (height, width), cropped and reduced as photographs are; True where it is light.

    What is transparent is dark; where all is of one colour, what is opaque is light.

    Raises:
        ImageError: Missing, or not a picture.
    """
    try:
        with readable(str(path)), open_picture(file_bytes(path)) as opened:
            return fitted_mask(opened, str(path), size)
    except ImageError as error:
        raise ImageError(f"mask: {error}; a mask is a grey picture, white where the picture may change") from None


def fitted_mask(picture: Image.Image, name: str, size: Size) -> Bool[Tensor, "height width"]:
    """`read_mask` for an opened picture."""
    with readable(name):
        light = grey(picture, name)
    small = ImageOps.fit(light, (size[1], size[0]), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(small) >= 128)


def read_all(places: Sequence[str | Path], size: Size, limit: int | None = None, *, strict: bool = False) -> Reading:
    """The pictures of files, folders, globs and parquet files, at most `limit` of them.

    Args:
        places: As `find_in` takes them.
        size: Height and width.
        limit: At most so many; those left out do not count.
        strict: Stop at the first that cannot be read.

    Raises:
        ImageError: As `find_photos`; a parquet file that cannot be read; not one picture that can be; with `strict` one that
            cannot.
    """
    found = find_in(places)
    reading = Reading([], passed_over=[printable(path.name) for path in found.passed_over])
    pictures = _each(found.paths, size, limit)
    while (limit is None or len(reading.photos) < limit) and (one := next(pictures, None)) is not None:
        if isinstance(one, Photo):
            reading.photos.append(one)
        elif strict:
            raise ImageError(one.reason)
        else:
            reading.rejected.append(one)
    if not reading.photos and reading.rejected:
        first, count = reading.rejected[0].reason, len(reading.rejected)
        raise ImageError(first if count == 1 else f"none of {count} pictures can be read, the first: {first}")
    return reading


def _each(paths: Sequence[Path], size: Size, limit: int | None) -> Iterator[Photo | Rejected]:
    """Pictures, read one by one as they are taken."""
    for path, name in zip(paths, distinct_names(paths), strict=True):
        if path.suffix == ".parquet":
            yield from _rows(path, name, size, limit)
            continue
        try:
            yield read_photo(path, size, name)
        except ImageError as error:
            yield Rejected(name, str(error))


def row_name(name: str, index: int) -> str:
    """What the picture in a row of a parquet file is called.

    >>> row_name("train.parquet", 7)
    'train-00007'
    """
    return f"{name.removesuffix('.parquet')}-{index:05d}"


def _rows(path: Path, name: str, size: Size, limit: int | None) -> Iterator[Photo | Rejected]:
    """The pictures of a parquet file in the Hugging Face layout, a column `image` with `bytes`."""
    few = {} if limit is None else {"few": max(1, min(limit, 16))}
    for index, data in enumerate(column_of(path, "image.bytes", **few)):
        row = row_name(name, index)
        try:
            yield decode_photo(bytes(data or b""), row, size, row)
        except ImageError as error:
            yield Rejected(row, str(error))


def read_photos(places: Sequence[str | Path], size: Size, limit: int | None = None) -> list[Photo]:
    """The photos of `read_all`, all of which must be readable.

    Raises:
        ImageError: As `read_all`, and a picture that cannot be read.
    """
    return read_all(places, size, limit, strict=True).photos


def _sides(name: str, value: Any) -> Size:
    """One number is that of both sides."""
    return sides(name, value if isinstance(value, (tuple, list)) else (value, value))


@takes({"size": _sides})
def load_images(paths: str | Path | Iterable[str | Path], size: int | Size) -> Tensor:
    """Pictures as one batch, shape (batch, 3, height, width) in [-1, 1]; a size of one number is that of both sides.

    Raises:
        ImageError: As `read_photo`, or no paths.
        ArgumentError: Sides that are no whole numbers from 1 on.
    """
    both: Any = size
    each = [paths] if isinstance(paths, (str, Path)) else one_of("files", Iterable)("paths", paths)
    pixels = [read_photo(path, both).pixels for path in each]
    if not pixels:
        raise ImageError("expected at least one picture, given none")
    return torch.stack(pixels)


def quantised(images: Tensor) -> Tensor:
    """Images, nominally in [-1, 1], as uint8: clamped, and rounded, so that 8-bit pictures come back as they were.

    >>> quantised(torch.tensor([-1.0, 0.0, 5.0])).tolist()
    [0, 128, 255]
    """
    return ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_bytes(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image of shape (channels, height, width), nominally in [-1, 1], as uint8 (height, width, 3)."""
    pixels = quantised(image).cpu()
    if pixels.shape[0] == 1:
        pixels = pixels.repeat(3, 1, 1)
    return pixels.permute(1, 2, 0).contiguous().numpy()


def png_bytes(image: Tensor) -> bytes:
    """An image as a PNG file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(image: Tensor, path: str | Path) -> None:
    """Write an image of shape (channels, height, width), nominally in [-1, 1]; whole or not at all."""
    write_atomically(Path(path), png_bytes(image))
