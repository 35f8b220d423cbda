"""Entries that a model can edit: their pictures can be read at its size, and it knows both prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from ..._tensors import Images
from ...core.model import Model
from ...errors import ArgumentError, UnsampleError
from ...models.families.prompts import PromptConditioner
from ...pictures.read import read_photo
from ...runs.manifest import Item
from .layout import Entry, Failure, read_layout, without_brackets


@dataclass(frozen=True)
class Editable:
    """The entries of a folder that a model can edit.

    Attributes:
        entries: In the order of the mapping file.
        items: Key, content's hash and size of each picture.
        failed: Entries that are left out.
    """

    entries: tuple[Entry, ...]
    items: tuple[Item, ...]
    failed: tuple[Failure, ...]

    @property
    def digest(self) -> str:
        """A hash of the prompts and regions."""
        edits = [(one.key, one.source_prompt, one.target_prompt, one.kind, one.runs) for one in self.entries]
        return hashlib.sha256(json.dumps(edits).encode()).hexdigest()[:12]

    def prompts(self, rows: slice) -> tuple[list[str], list[str]]:
        """Source and target prompts, without their brackets."""
        chosen = self.entries[rows]
        return [without_brackets(one.source_prompt) for one in chosen], [without_brackets(one.target_prompt) for one in chosen]

    def load(
        self, rows: slice, size: tuple[int, int], *, border: bool = True
    ) -> tuple[Images, Bool[Tensor, "batch height width"]]:
        """Pictures [B, 3, H, W] in [-1, 1] and their regions, as `Entry.load`."""
        loaded = [one.load(size, border=border) for one in self.entries[rows]]
        images, regions = zip(*loaded, strict=True)
        return torch.cat(images), torch.cat(regions)


def editable(model: Model, folder: str | Path, limit: int | None = None) -> Editable:
    """The first entries that this model can edit; `failed` are those left out before them.

    Raises:
        ArgumentError: No mapping file, or not one entry that can be edited.
    """
    layout = read_layout(folder)
    entries: list[Entry] = []
    items: list[Item] = []
    failed = list(layout.failed)
    for entry in layout.entries:
        if len(entries) == limit:
            break
        try:
            _check_prompts(model, (entry.source_prompt, entry.target_prompt))
            entry.load(model.image_size)
            photo = read_photo(entry.path, model.image_size)
        except UnsampleError as error:
            failed.append(Failure(entry.key, str(error)))
            continue
        entries.append(entry)
        items.append(Item(name=entry.key, id=photo.id, width=photo.original[0], height=photo.original[1]))
    if not entries:
        reason = f"all {len(failed)} are left out, the first as {failed[0]}" if failed else "its mapping file is empty"
        raise ArgumentError(f"no entry of {folder} can be edited by {model.name!r}: {reason}")
    return Editable(tuple(entries), tuple(items), tuple(failed))


def _check_prompts(model: Model, prompts: Iterable[str]) -> None:
    """Try the prompts, except on a model of free text: it takes any, and would have to encode them all."""
    if isinstance(model.conditioner, PromptConditioner):
        return
    for prompt in prompts:
        model.denoiser([without_brackets(prompt)])
