"""Opens pictures: of an explicit list of formats, as upright 8-bit RGB in the colours of sRGB, or as the grey of a mask.

This is the only place that opens a picture. Pillow would also open kinds whose decoding starts another program, as PostScript
does whatever the file is called; those are not on the list. Every conversion is noted, and what a decoder makes of damaged
bytes becomes one line.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..core.files import NotRegularError, regular
from ..errors import ImageError, one_line

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
"""What is opened, by Pillow's names. TGA, which has no signature, is tried last."""

STARTS_PROGRAMS = frozenset({"EPS", "WMF"})
"""Kinds that Pillow has others decode."""

ORIENTATION = 0x0112
"""The EXIF tag."""

ROUNDING = 1
"""Levels of 8 bits that a conversion from sRGB to sRGB may differ by."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_MEANING = {"L": "greyscale repeated in three channels", "1": "black and white repeated in three channels"}
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def file_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file: a pipe or a device might never end.

    Raises:
        ImageError: Missing, not a regular file, or not to be read.
    """
    try:
        return regular(path).read_bytes()
    except NotRegularError:
        raise ImageError(f"cannot read {path}: not a regular file; give the file of a picture") from None
    except FileNotFoundError:
        raise ImageError(f"no such picture: {path}; check the path") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise ImageError(f"cannot read {path}: {reason}; check that it is a file and may be read") from None


def open_picture(source: bytes | Path) -> Image.Image:
    """A picture of one of `FORMATS`, its pixels not read yet; of a file only as much is read as that takes."""
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]  # Pillow may be built without some
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large; what is too large is an error
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises on damaged bytes, struct.error, TypeError, EOFError ..., into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else one_line(error)
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise ImageError(f"cannot read {name}: {reason}; expected a whole {kinds} file") from None


def upright_rgb(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """8-bit sRGB, the right way up, transparency laid on white, and a note of each conversion.

    Raises:
        ImageError: Numbers of unknown range, or a kind that starts a program.
    """
    image, notes = _upright(image, name)
    if image.mode == "RGB" and not _is_transparent(image) and "icc_profile" not in image.info:
        return image, notes
    image, alpha = _split(image)
    colour, converted = _in_srgb(image)
    notes += converted
    if alpha is not None:
        white = Image.new("RGBA", colour.size, "white")
        colour = colour.convert("RGBA")
        colour.putalpha(alpha)
        white.alpha_composite(colour)
        return white.convert("RGB"), [*notes, "transparency laid on white"]
    return colour.convert("RGB"), notes


def grey(image: Image.Image, name: str) -> Image.Image:
    """8-bit grey, the right way up: what is transparent is black; where all is of one colour, transparency alone counts.

    Raises:
        ImageError: As `upright_rgb`.
    """
    image, alpha = _split(_upright(image, name)[0])
    light = image.convert("L")
    if alpha is None:
        return light
    low, high = light.getextrema()
    return alpha if low == high else Image.composite(light, Image.new("L", light.size), alpha)


def _upright(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """The first frame, turned as EXIF says, of at most 8 bits per channel, with notes."""
    if image.format in STARTS_PROGRAMS:
        raise ImageError(f"{name} is a {image.format} file, which takes a program to read; expected a picture such as PNG")
    notes, kind, frames = list[str](), image.format, getattr(image, "n_frames", 1)
    if frames > 1 and kind != "MPO":  # phones store a preview as a second MPO frame
        notes.append(f"the first of {frames} frames or pages")
    image.load()
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        image = ImageOps.exif_transpose(image)
        notes.append("rotated as its EXIF says")
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and kind in ("PNG", "PPM")):
        return _of_bytes(np.asarray(image).astype(np.float64) / 257, image), [*notes, "16-bit greyscale scaled to 8 bits"]
    if image.mode == "F":
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 1:
            return _of_bytes(values.astype(np.float64) * 255, image), [*notes, "values in [0, 1] scaled to 8 bits"]
    if image.mode in ("I", "F"):
        raise ImageError(f"{name} holds {image.mode} data of unknown range; expected 8 or 16 bits: convert it to PNG")
    if image.mode != "RGB" and not _is_transparent(image):
        notes.append(_MEANING.get(image.mode, f"converted from {image.mode} to RGB"))
    return image, notes


def _is_transparent(image: Image.Image) -> bool:
    """Whether it says of every pixel how opaque it is, itself or by its palette or by a colour that is transparent."""
    of_palette = image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA"
    return image.mode in _WITH_ALPHA or "transparency" in image.info or of_palette


def _of_bytes(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], image: Image.Image) -> Image.Image:
    """Values in 0..255 as a grey picture, with the colour profile of `image`."""
    made = Image.fromarray(values.round().astype(np.uint8))
    made.info |= {name: image.info[name] for name in ("icc_profile",) if name in image.info}
    return made


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours, as L, RGB, CMYK or another mode without transparency, and how opaque they are, if it says so."""
    if _is_transparent(image):
        whole = image.convert("RGBA")
        is_grey = image.mode in ("L", "LA", "La", "1")
        colour = whole.convert("RGB").convert("L") if is_grey else whole.convert("RGB")
        colour.info |= {name: image.info[name] for name in ("icc_profile",) if name in image.info}
        return colour, whole.getchannel("A")
    return (image.convert("RGB") if image.mode == "P" else image), None


def _in_srgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Colours converted from the profile that is embedded to sRGB, and a note; a profile of sRGB changes nothing."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("L", "RGB", "CMYK"):
        return image, []
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
        return image, ["its colour profile cannot be used and is ignored"]
    assert converted is not None
    apart = np.asarray(converted).astype(np.int16) - np.asarray(image.convert("RGB"))
    if image.mode != "CMYK" and int(np.abs(apart).max()) <= ROUNDING:
        return image, []
    return converted, ["colours converted from its profile to sRGB"]
