"""A small set of our own in the layout of PIE-Bench, from photographs whose classes are known.

Each edit exchanges the class for another: "a photo of a [goldfish]" becomes "a photo of a [lighthouse]". The region is a box
in the middle, where photographs of a class mostly show it; nobody drew it, so the numbers are of this set alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ...core.files import expanded, write_atomically
from ...diagnostics import plain_mask, resize_mask
from ...errors import ArgumentError, ImageError, RunError, UnknownNameError
from ...pictures.parquet import column_of
from ...pictures.read import Photo, Rejected, decode_photo, row_name, save_png
from .layout import IMAGES, MAPPING, encode_mask

Region = Literal["centre", "textured"]

CENTRE = 0.75
"""Side of the box in the middle, as a share of the picture's: 56 % of its pixels."""

CELLS = 8
"""Cells along a side, into which the textured region is made coarse."""

LABELS = 4096
"""Labels that are read at once."""

OBJECT = "1"
"""`editing_type_id` of a changed object."""


@dataclass(frozen=True)
class Labelled:
    """A photograph and the name of its class."""

    photo: Photo
    name: str


def read_labelled(
    path: str | Path,
    names: Sequence[str],
    size: tuple[int, int],
    limit: int | None = None,
    *,
    seed: int | None = None,
    rejected: list[Rejected] | None = None,
) -> list[Labelled]:
    """Photographs of a parquet file in the Hugging Face layout, with columns `image` and `label`.

    Args:
        path: Of the file.
        names: Name i is that of label i, as `model.conditioner.names` of the bundled model.
        size: Height and width.
        limit: At most so many: the first, or with a seed some of all.
        seed: Of their choice, for a file that is sorted by label.
        rejected: Where those that cannot be read are put; without, the first of them is an error.

    Raises:
        ImageError: Not such a file, a damaged picture, or a label without a name.
    """
    every = list(islice(column_of(path, "label", LABELS), limit if seed is None else None))
    order = range(len(every)) if seed is None else np.random.default_rng(seed).permutation(len(every)).tolist()
    rows = sorted(order[:limit])
    if bad := [every[row] for row in rows if type(every[row]) is not int or not 0 <= every[row] < len(names)]:
        raise ImageError(f"{path}: expected labels 0..{len(names) - 1}, given {bad[0]}; give the names of its classes")
    wanted, pictures = set(rows), list[Labelled]()
    for row, data in enumerate(islice(column_of(path, "image.bytes"), max(rows, default=-1) + 1)):
        if row not in wanted:
            continue
        name = row_name(Path(path).name, row)
        try:
            pictures.append(Labelled(decode_photo(bytes(data or b""), name, size), names[every[row]]))
        except ImageError as error:
            if rejected is None:
                raise
            rejected.append(Rejected(name, str(error)))
    if rejected and not pictures:
        raise ImageError(rejected[0].reason)
    return pictures


def make_small_set(
    photos: Sequence[Labelled],
    folder: str | Path,
    *,
    targets: Sequence[str] | None = None,
    template: str = "a photo of a [{}]",
    region: Region = "centre",
    seed: int = 0,
) -> None:
    """Write a folder that `read_layout` reads.

    Args:
        photos: Of any size.
        folder: Made if need be; one that has a mapping file is left alone.
        targets: Names of classes to change to; default are those of the photographs. Which one depends on the seed and the
            photograph, and on nothing else.
        template: Of prompts; "[{}]" makes them the names themselves, which a class-conditional model takes.
        region: "centre" is a box of three quarters of each side; "textured" the cells of 8 x 8 of which at least half is not
            plain (`plain_mask`), which leaves many photographs next to no background.
        seed: Of the choice of targets.

    Raises:
        ArgumentError: No photographs, or no other class to change one to, or a template without {}.
        RunError: The folder has a mapping file, or cannot be written.
    """
    root = expanded(folder)
    names = sorted(set(targets) if targets is not None else {one.name for one in photos})
    if not photos or "{}" not in template:
        raise ArgumentError(f"expected photographs and a template with {{}}, given {len(photos)} and {template!r}")
    if region not in get_args(Region):
        raise UnknownNameError("region", region, get_args(Region))
    chosen = [_other(names, one, seed) for one in photos]
    if (root / MAPPING).exists():
        raise RunError(f"{root} holds a set already; choose another folder")
    mapping = {}
    for index, (one, target) in enumerate(zip(photos, chosen, strict=True)):
        path = f"{OBJECT}_change_object/{index:012d}.png"
        save_png(one.photo.pixels, root / IMAGES / path)
        mapping[f"{index:012d}"] = {
            "image_path": path,
            "original_prompt": template.replace("{}", one.name),
            "editing_prompt": template.replace("{}", target),
            "editing_instruction": f"change the {one.name} to a {target}",
            "editing_type_id": OBJECT,
            "blended_word": f"{one.name} {target}",
            "mask": encode_mask(_region(one.photo.pixels, region)),
        }
    write_atomically(root / MAPPING, json.dumps(mapping, indent=1).encode())


def _other(names: Sequence[str], one: Labelled, seed: int) -> str:
    others = [name for name in names if name != one.name]
    if not others:
        raise ArgumentError(f"targets: expected a class other than {one.name!r}, given {list(names)}")
    digest = hashlib.sha256(f"{seed}/{one.photo.id}".encode()).digest()
    return others[int.from_bytes(digest[:8], "big") % len(others)]


def _region(pixels: Tensor, region: Region) -> Bool[Tensor, "height width"]:
    height, width = pixels.shape[1:]
    if region == "textured":
        cells = resize_mask(~plain_mask(pixels[None]), (CELLS, CELLS))
        return resize_mask(cells, (height, width))[0]
    mask = torch.zeros(height, width, dtype=torch.bool, device="cpu")
    top, left = (round(side * (1 - CENTRE) / 2) for side in (height, width))
    mask[top : height - top, left : width - left] = True
    return mask
