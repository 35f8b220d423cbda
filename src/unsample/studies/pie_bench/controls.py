"""Every edit of every entry, beside three control rows that show what the numbers are worth.

The unedited source has a perfect background and no edit; the codec alone is the best background that a latent model can have;
and an edit with the source's pixels pasted back outside of the region keeps only what the method did inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..._tensors import Images
from ...core.model import Codec
from ...errors import ArgumentError, UnsampleError
from .layout import Entry, Failure, Layout, without_brackets
from .metrics import METRICS, Compared, Metric, Perception, eight_bit, measured
from .scores import Scores

EditImage = Callable[[Images, str, str, Bool[Tensor, "1 height width"]], Images]
"""(image [1, 3, H, W], source prompt, target prompt, region Bool[1, H, W]) -> the edited image, of the same shape."""

SOURCE = "source, unedited"
CODEC = "codec alone"
PASTED = "{}, source pasted outside"


def measure(
    layout: Layout,
    edits: Mapping[str, EditImage],
    *,
    codec: Codec | None = None,
    size: tuple[int, int] | None = None,
    border: bool = True,
    cut: bool = False,
    perception: Perception | None = None,
) -> Scores:
    """Edit every entry with every function, and measure the edits as 8-bit pictures.

    Args:
        layout: From `read_layout`.
        edits: Name -> a function that edits; its prompts have no brackets. An exception fails that entry alone.
        codec: Of the model that edits, for the row of images that are encoded and decoded only.
        size: Height and width to edit at; None is each picture's own.
        border: As `decode_mask`.
        cut: As `decode_mask`.
        perception: The networks of four of the numbers; a missing one leaves its columns empty.

    Raises:
        ArgumentError: No function that edits, or one with the name of a control row.

    >>> measure(Layout(()), {"nothing": lambda image, source, target, region: image}).entries
    0
    """
    rows, every = rows_of(edits, codec=codec is not None), rows_of(edits, codec=True)
    taken = {row for row in edits if every.count(row) > 1}
    if not edits or taken:
        raise ArgumentError(f"edits: expected names of functions that edit, given {sorted(taken) or 'none'}; rename them")
    failed, reasons, parts = list(layout.failed), dict[str, UnsampleError](), dict[str, dict[str, Tensor]]()
    for entry in layout.entries:
        try:
            image, region = entry.load(size, border=border, cut=cut)
        except UnsampleError as error:
            failed.append(Failure(entry.key, str(error)))
            continue
        edited, own = _edited(entry, image, region, edits, codec)
        failed += own
        shown = pictures_of(image, region, edited)
        parts[entry.key] = measured_rows(entry, image, region, shown, rows, perception or Perception(), reasons)
    nothing = torch.full((len(rows),), torch.nan, device="cpu")
    columns = {metric.name: [part.get(metric.name, nothing) for part in parts.values()] for metric in METRICS}
    kinds = {entry.key: entry.kind for entry in layout.entries}
    return Scores.of(rows, list(parts), columns, failed, reasons, kinds)


def rows_of(names: Iterable[str], *, codec: bool) -> list[str]:
    """Rows of the table: controls, then each edit and the same with the source pasted outside.

    >>> rows_of(["mine"], codec=False)
    ['source, unedited', 'mine', 'mine, source pasted outside']
    """
    return [SOURCE, *([CODEC] if codec else []), *(row for name in names for row in (name, PASTED.format(name)))]


def pictures_of(image: Images, region: Bool[Tensor, "1 height width"], edited: Mapping[str, Images]) -> dict[str, Images]:
    """Row -> 8-bit picture of an entry: the source, then `edited`, and beside each but the codec's the pasted one."""
    pictures = {SOURCE: image}
    for name, picture in edited.items():
        pictures[name] = picture
        if name != CODEC:
            pictures[PASTED.format(name)] = torch.where(region[:, None], picture, image)
    return {row: eight_bit(picture) for row, picture in pictures.items()}


def measured_rows(
    entry: Entry,
    image: Images,
    region: Bool[Tensor, "1 height width"],
    shown: Mapping[str, Images],
    rows: Sequence[str],
    perception: Perception,
    reasons: dict[str, UnsampleError],
    metrics: Sequence[Metric] = METRICS,
) -> dict[str, Float[Tensor, " rows"]]:
    """Number -> its value for each of `rows`, 8-bit pictures measured as one batch; NaN for rows not shown or without one."""
    count, places = len(shown), torch.tensor([rows.index(row) for row in shown], device="cpu")
    compared = Compared(
        eight_bit(image).expand(count, -1, -1, -1),
        torch.cat(list(shown.values())),
        region.expand(count, -1, -1),
        (without_brackets(entry.target_prompt),) * count,
    )
    nothing = torch.full((len(rows),), torch.nan, dtype=torch.float64, device="cpu")
    values_of = measured(compared, perception, reasons, metrics)
    return {name: nothing.index_copy(0, places, values.double().cpu()) for name, values in values_of.items()}


def _edited(
    entry: Entry,
    image: Images,
    region: Bool[Tensor, "1 height width"],
    edits: Mapping[str, EditImage],
    codec: Codec | None,
) -> tuple[dict[str, Images], list[Failure]]:
    """Name -> edited image, the codec's own first; and the edits that failed."""
    prompts = without_brackets(entry.source_prompt), without_brackets(entry.target_prompt)
    calls: dict[str, Callable[[], object]] = {}
    if codec is not None:
        calls[CODEC] = lambda: codec.decode(codec.encode(image.clone()))
    calls |= {name: partial(edit, image.clone(), *prompts, region.clone()) for name, edit in edits.items()}
    edited: dict[str, Images] = {}
    failed: list[Failure] = []
    for name, call in calls.items():
        try:
            edited[name] = _checked(call(), image)
        except Exception as error:  # an edit is anyone's function, and may raise anything
            text = " ".join(str(error).split())[:200]
            reason = text if isinstance(error, UnsampleError) else f"{type(error).__name__}: {text}"
            failed.append(Failure(entry.key, reason, name))
    return edited, failed


def _checked(edited: object, image: Images) -> Images:
    if not isinstance(edited, Tensor) or edited.shape != image.shape or not edited.is_floating_point():
        given = f"{edited.dtype} of shape {tuple(edited.shape)}" if isinstance(edited, Tensor) else type(edited).__name__
        raise ArgumentError(f"expected an edited image of shape {tuple(image.shape)} in [-1, 1], given {given}")
    if not bool(torch.isfinite(edited).all()):
        raise ArgumentError("expected an edited image of finite numbers, given NaN or infinite ones")
    return edited.detach().to(image)
