"""Reads photographs, and writes pictures.

Reading turns every ordinary kind of picture into upright 8-bit RGB and says what it did: greyscale is repeated, transparency
laid on white, CMYK converted, 16-bit scaled, EXIF rotation applied. What has no single meaning (animations, float data) or too
few pixels is refused with one line.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..core.files import write_atomically
from ..errors import ImageError, one_line

__all__ = [
    "Photo",
    "decode_photo",
    "demo_photos",
    "find_photos",
    "load_images",
    "read_parquet",
    "read_photo",
    "read_photos",
    "save_png",
]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm"})
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, eq=False)
class Photo:
    """One picture, ready for a model.

    Attributes:
        name: File name without directory.
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

    @classmethod
    def of(cls, image: Tensor, name: str) -> Photo:
        """A tensor of shape (channels, height, width) as a photo; its id is a hash of its values."""
        pixels = image.detach().cpu().to(torch.promote_types(image.dtype, torch.float32)).contiguous()
        key = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
        return cls(name, key, pixels, (pixels.shape[2], pixels.shape[1]))


def find_photos(places: Sequence[str | Path]) -> list[Path]:
    """Files, the pictures in folders (not below them), and what globs match; sorted within each place, none twice.

    Raises:
        ImageError: A place that is missing, or holds no picture.
    """
    found: dict[Path, Path] = {}
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not files:
                raise ImageError(f"no pictures in folder {place}: expected files ending in {', '.join(sorted(SUFFIXES))}")
        elif path.is_file():
            files = [path]
        elif has_magic(str(place)):
            files = sorted(Path(match) for match in glob(str(path), recursive=True) if Path(match).is_file())
            if not files:
                raise ImageError(f"no file matches {place}; check the pattern")
        else:
            raise ImageError(f"no such file or folder: {place}; check the path")
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def demo_photos() -> list[Path]:
    """The photographs that ship with unsample; authors and licences are in photos/README.md."""
    return sorted((Path(__file__).parent / "photos").glob("*.jpg"))


def read_photo(path: str | Path, size: tuple[int, int]) -> Photo:
    """One picture, centre-cropped and area-averaged to `size` (height, width).

    Raises:
        ImageError: Missing, unreadable, animated, of float data, or smaller than `size`.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError(f"no such picture: {path}; check the path") from None
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}; check that it is a file and may be read") from None
    return decode_photo(data, str(path), size)


def decode_photo(data: bytes, name: str, size: tuple[int, int]) -> Photo:
    """`read_photo` for the bytes of a file."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            _refuse_frames(opened, name)
            opened.load()
            image, notes = _upright_rgb(opened, name)
    except ImageError:
        raise
    except Exception as error:  # on damaged bytes a decoder may raise anything: struct.error, TypeError, EOFError ...
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else one_line(error)
        raise ImageError(f"cannot read {name}: {reason}; expected a whole PNG, JPEG, WebP, BMP or TIFF file") from None
    height, width = size
    if image.width < width or image.height < height:
        raise ImageError(
            f"{name} is {image.width}x{image.height} pixels, smaller than the model's {width}x{height}; give a larger picture"
        )
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()
    return Photo(Path(name).name, hashlib.sha256(data).hexdigest()[:16], pixels, image.size, tuple(notes))


def read_photos(places: Sequence[str | Path], size: tuple[int, int], limit: int | None = None) -> list[Photo]:
    """The pictures of files, folders, globs and parquet files, at most `limit` of them.

    Raises:
        ImageError: As `find_photos`, `read_photo` and `read_parquet`.
    """
    photos: list[Photo] = []
    for path in find_photos(places):
        left = None if limit is None else limit - len(photos)
        if left == 0:
            break
        photos += read_parquet(path, size, left) if path.suffix == ".parquet" else [read_photo(path, size)]
    return photos


def read_parquet(path: str | Path, size: tuple[int, int], limit: int | None = None) -> list[Photo]:
    """The first pictures of a parquet file in the Hugging Face image layout (a column `image` with `bytes`).

    Raises:
        ImageError: Not such a file, or a damaged picture in it.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ImageError("reading parquet needs pyarrow; install unsample[data]") from None
    try:
        table = parquet.read_table(path, columns=["image"]).slice(0, limit)
        pictures = [row["bytes"] for row in table["image"].to_pylist()]
    except (OSError, KeyError, TypeError, ArrowException) as error:
        raise ImageError(f"{path} is not a parquet file with a column of images ({one_line(error, 200)})") from None
    return [decode_photo(data, f"{Path(path).stem}-{index:05d}", size) for index, data in enumerate(pictures)]


def load_images(paths: Iterable[str | Path], size: tuple[int, int]) -> Tensor:
    """Pictures as one batch, shape (batch, 3, height, width) in [-1, 1].

    Raises:
        ImageError: As `read_photo`, or no paths.
    """
    pixels = [read_photo(path, size).pixels for path in paths]
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


def _refuse_frames(image: Image.Image, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # phones store a preview as a second MPO frame
        raise ImageError(f"{name} has {frames} frames or pages; expected a still picture: save the one you mean as PNG")


def _upright_rgb(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """8-bit RGB, the right way up, and a note of each conversion."""
    notes = []
    if image.getexif().get(0x0112, 1) in range(2, 9):
        image, notes = ImageOps.exif_transpose(image), ["rotated as its EXIF says"]
    if image.mode == "RGB":
        return image, notes
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().astype(np.uint8))
        return image.convert("RGB"), [*notes, "16-bit greyscale scaled to 8 bits"]
    if image.mode in ("I", "F"):
        raise ImageError(f"{name} holds {image.mode} data of unknown range; expected 8 or 16 bits: convert it to PNG")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        white.alpha_composite(colour)
        return white.convert("RGB"), [*notes, "transparency laid on white"]
    meaning = {"L": "greyscale repeated in three channels", "1": "black and white repeated in three channels"}
    return image.convert("RGB"), [*notes, meaning.get(image.mode, f"converted from {image.mode} to RGB")]
