"""Every way of editing on every entry, beside three rows that say what the numbers are worth.

The unedited source has a perfect background and no edit; the codec alone is the best background that a latent model can have;
and an edit with the source's pixels pasted back outside of the region keeps only what the method did inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool
from torch import Tensor

from ..._typing import Images
from ...core.model import Codec
from ...errors import ArgumentError, UnsampleError
from .layout import Entry, Failure, Layout, without_brackets
from .metrics import METRICS, Compared, Metric, Perception, eight_bit, measured
from .scores import Scores

__all__ = ["CODEC", "PASTED", "SOURCE", "EditImage", "measure", "measured_rows", "pasted"]

EditImage = Callable[[Images, str, str, Bool[Tensor, "1 height width"]], Images]
"""(image [1, 3, H, W], source prompt, target prompt, region Bool[1, H, W]) -> the edited image, of the same shape."""

SOURCE = "source, unedited"
CODEC = "codec alone"
PASTED = "{}, source pasted outside"


def measure(
    layout: Layout,
    ways: Mapping[str, EditImage],
    *,
    codec: Codec | None = None,
    size: tuple[int, int] | None = None,
    border: bool = True,
    cut: bool = False,
    perception: Perception | None = None,
) -> Scores:
    """Edit every entry in every way, and measure what came out, as 8-bit pictures.

    Args:
        layout: Of `read_layout`.
        ways: Name -> a function that edits; it is told prompts without brackets. What it raises fails that entry alone.
        codec: Of the model that edits, for the row of images that are encoded and decoded only.
        size: Height and width to edit at; None is each picture's own.
        border: As `decode_mask`.
        cut: As `decode_mask`.
        perception: The networks of four of the numbers; those that are missing leave their columns empty.

    Raises:
        ArgumentError: No way of editing, or one with the name of a row.

    >>> measure(Layout(()), {"nothing": lambda image, source, target, region: image}).entries
    0
    """
    taken = {SOURCE, CODEC, *(PASTED.format(name) for name in ways)} & set(ways)
    if not ways or taken:
        raise ArgumentError(f"ways: expected names of functions that edit, given {sorted(taken) or 'none'}; rename them")
    bench = _Bench(dict(ways), codec, perception or Perception(), failed=list(layout.failed))
    for entry in layout.entries:
        try:
            image, region = entry.load(size, border=border, cut=cut)
        except UnsampleError as error:
            bench.failed.append(Failure(entry.key, str(error)))
            continue
        bench.add(entry, image, region)
    reasons = {name: str(error) for name, error in bench.reasons.items()}
    kinds = {entry.key: entry.kind for entry in layout.entries}
    return Scores(bench.values, tuple(bench.failed), reasons, bench.read, kinds)


def pasted(image: Images, edited: Images, region: Bool[Tensor, "batch height width"]) -> Images:
    """The edit inside of the region, the source outside."""
    return torch.where(region[:, None], edited, image)


def measured_rows(
    entry: Entry,
    image: Images,
    region: Bool[Tensor, "1 height width"],
    shown: Mapping[str, Images],
    perception: Perception,
    reasons: dict[str, UnsampleError],
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, dict[str, float]]:
    """Number -> row -> value of all rows of an entry, 8-bit pictures measured as one batch; NaN where there is none."""
    count = len(shown)
    compared = Compared(
        eight_bit(image).expand(count, -1, -1, -1),
        torch.cat(list(shown.values())),
        region.expand(count, -1, -1),
        (without_brackets(entry.target_prompt),) * count,
    )
    found = measured(compared, perception, reasons, metrics)
    return {name: dict(zip(shown, column.tolist(), strict=True)) for name, column in found.items()}


@dataclass
class _Bench:
    """What is measured so far: row -> metric -> key -> value."""

    ways: Mapping[str, EditImage]
    codec: Codec | None
    perception: Perception
    failed: list[Failure]
    values: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    reasons: dict[str, UnsampleError] = field(default_factory=dict)
    read: int = 0

    def __post_init__(self) -> None:
        controls = [SOURCE] if self.codec is None else [SOURCE, CODEC]
        rows = [*controls, *(row for name in self.ways for row in (name, PASTED.format(name)))]
        self.values = {row: {metric.name: {} for metric in METRICS} for row in rows}

    def add(self, entry: Entry, image: Images, region: Bool[Tensor, "1 height width"]) -> None:
        """All rows of an entry, measured as one batch."""
        self.read += 1
        shown = {row: eight_bit(found) for row, found in self._edited(entry, image, region).items()}
        for name, column in measured_rows(entry, image, region, shown, self.perception, self.reasons).items():
            for row, value in column.items():
                if value == value:  # no NaN: a region without a background, or without pixels
                    self.values[row][name][entry.key] = value

    def _edited(self, entry: Entry, image: Images, region: Bool[Tensor, "1 height width"]) -> dict[str, Images]:
        found = {SOURCE: image}
        prompts = without_brackets(entry.source_prompt), without_brackets(entry.target_prompt)
        codec = self.codec
        if codec is not None:
            self._try(found, entry.key, CODEC, lambda: codec.decode(codec.encode(image.clone())), image)
        for name, edit in self.ways.items():
            self._try(found, entry.key, name, partial(edit, image.clone(), *prompts, region.clone()), image)
            if name in found:
                found[PASTED.format(name)] = pasted(image, found[name], region)
        return found

    def _try(self, found: dict[str, Images], key: str, row: str, edit: Callable[[], object], image: Images) -> None:
        """Put what `edit` returns into `found`, or why it is none into `failed`."""
        try:
            found[row] = _checked(edit(), image)
        except Exception as error:  # an edit is anyone's function, and may raise anything
            reason = " ".join(str(error).split())[:200]
            told = reason if isinstance(error, UnsampleError) else f"{type(error).__name__}: {reason}"
            self.failed.append(Failure(key, told, row))


def _checked(edited: object, image: Images) -> Images:
    if not isinstance(edited, Tensor) or edited.shape != image.shape or not edited.is_floating_point():
        given = f"{edited.dtype} of shape {tuple(edited.shape)}" if isinstance(edited, Tensor) else type(edited).__name__
        raise ArgumentError(f"expected an edited image of shape {tuple(image.shape)} in [-1, 1], given {given}")
    if not bool(torch.isfinite(edited).all()):
        raise ArgumentError("expected an edited image of finite numbers, given NaN or infinite ones")
    return edited.detach().to(image)
