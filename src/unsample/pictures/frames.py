"""The frames of an interpolation: side by side on one picture, or one after the other as an animation."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from ..errors import ArgumentError
from ._canvas import columns_of, panels, png, say_left_out, show_images
from .read import to_bytes

Pixels = npt.NDArray[np.uint8]

ANIMATIONS, FFMPEG = ("gif", "mp4"), "ffmpeg"

WIDE, TALL = 16, 16
"""Frames side by side, and rows of them, at most."""

SIDE, SECONDS = 256, 0.15
"""Smaller frames are enlarged to about this many pixels, whole pixels to whole pixels; each is shown this long."""


def strip(images: Tensor, labels: Mapping[int, str], *, columns: int | None = None) -> bytes:
    """Frames side by side, row by row, with names over some of them; of very many some, evenly apart; as PNG bytes.

    Args:
        images: Shape (frames, channels, height, width) in [-1, 1].
        labels: Frame -> its name: those of the ends, and of others that were given.
        columns: Frames in a row; by default all of them, or 16.
    """
    count = len(images)
    if columns is None:
        shown = some_of(count, WIDE * TALL)
        rows, across = columns_of(len(shown), WIDE)
    else:
        downwards, aside = (some_of(many, most) for many, most in zip(columns_of(count, columns), (TALL, WIDE), strict=True))
        places = [row * min(columns, count) + column for row in downwards for column in aside]
        shown, rows, across = [place for place in places if place < count], len(downwards), len(aside)
    figure, axes, canvas = panels(rows, across, margin=0.4)
    say_left_out(figure, (len(shown), count, "frames"))
    show_images(axes, images[shown], {place: labels[frame] for place, frame in enumerate(shown) if frame in labels})
    return png(figure, canvas)


def some_of(count: int, most: int) -> list[int]:
    """All of `count` numbers from 0, or `most` of them, evenly apart, with the first and the last.

    >>> some_of(3, 5), some_of(9, 3)
    ([0, 1, 2], [0, 4, 8])
    """
    return list(range(count)) if count <= most else [round(i * (count - 1) / (most - 1)) for i in range(most)]


def animation(images: Tensor, kind: str = "gif") -> bytes:
    """Frames there and back again, for a loop without a jump; small ones enlarged.

    Args:
        images: Shape (frames, channels, height, width) in [-1, 1], at least 2 frames.
        kind: `gif`, or `mp4`, which needs the program ffmpeg.

    Raises:
        ArgumentError: Another kind, fewer than two frames, no ffmpeg, or one that fails.
    """
    check_animation(kind)
    if len(images) < 2:
        raise ArgumentError(f"animation: expected at least 2 frames, given {len(images)}")
    there = [_enlarged(to_bytes(image)) for image in images]
    frames = [*there, *there[-2:0:-1]]
    return _gif(frames) if kind == "gif" else _mp4(frames)


def check_animation(kind: str) -> None:
    """Refuse a kind of `animation` that cannot be made here.

    Raises:
        ArgumentError: Another kind, or no ffmpeg.
    """
    if kind not in ANIMATIONS:
        raise ArgumentError(f"animation: expected {' or '.join(ANIMATIONS)}, given {kind!r}")
    if kind == "mp4" and _ffmpeg() is None:
        raise ArgumentError(
            "animation: mp4 needs the program ffmpeg, which is not there: install it or unsample[video], or ask for gif"
        )


def _ffmpeg() -> str | None:
    """The program: the one on the path, else the one that the package imageio-ffmpeg brings."""
    program = shutil.which(FFMPEG)
    if program is None and importlib.util.find_spec("imageio_ffmpeg"):
        program = str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    return program


def _enlarged(pixels: Pixels) -> Pixels:
    times = max(1, SIDE // max(pixels.shape[:2]))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _gif(frames: list[Pixels]) -> bytes:
    first, *rest = (Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in frames)
    buffer = io.BytesIO()
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=round(1000 * SECONDS), loop=0)
    return buffer.getvalue()


def _mp4(frames: list[Pixels]) -> bytes:
    """By ffmpeg, from raw frames; odd sides lose a row or column, which its usual format asks for."""
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{1 / SECONDS:g}", "-i", "-"]
    with TemporaryDirectory() as folder:
        out = Path(folder) / "frames.mp4"
        command = [_ffmpeg() or FFMPEG, "-v", "error", "-y", *raw, "-pix_fmt", "yuv420p", str(out)]
        stream = b"".join(np.ascontiguousarray(frame[:height, :width]).tobytes() for frame in frames)
        done = subprocess.run(command, input=stream, capture_output=True, check=False)
        if done.returncode or not out.is_file():
            reason = " ".join(done.stderr.decode(errors="replace").split())[:200]
            raise ArgumentError(f"animation: ffmpeg could not write mp4 ({reason}): ask for gif")
        return out.read_bytes()
