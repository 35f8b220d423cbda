"""Images with their classes: photographs from a parquet file that says them, or images sampled under classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ...core.model import Condition
from ...errors import ArgumentError
from ...pictures.read import Photo, find_photos
from ...uses.sample import sample
from .lab import GENERATED, Lab, Pictures

__all__ = ["labelled"]

LABEL = "label"


def labelled(lab: Lab, count: int, steps: int) -> tuple[Pictures, list[Condition]]:
    """The lab's photographs with the classes that their parquet files give; images sampled under classes without those.

    Args:
        lab: With a model that knows the classes.
        count: At most so many photographs, or so many sampled images, their classes spread over the model's.
        steps: Of sampling.

    Raises:
        ArgumentError: A model without classes, or labels that are not among them.
    """
    conditioner = lab.model.conditioner
    if conditioner is None:
        raise ArgumentError(f"model {lab.model.name!r} takes no condition, which guidance needs: choose one with classes")
    labels = _labels(lab.data, count)
    if labels is not None:
        conditioner(labels, lab.model.device)  # refuses what is no class before any work
        return lab.photographs(count), labels
    names: Sequence[str] = getattr(conditioner, "names", ())
    if not names:
        raise ArgumentError(f"model {lab.model.name!r} has no list of classes to sample under: give photographs with labels")
    return _sampled(lab, count, steps, [index * len(names) // count % len(names) for index in range(count)])


def _sampled(lab: Lab, count: int, steps: int, labels: list[Condition]) -> tuple[Pictures, list[Condition]]:
    """By DDIM without guidance, from the noise of the lab's generated images."""
    noise = (source := lab.generated(count, steps)).noise
    assert noise is not None  # what generated images are sampled from

    def compute(rows: slice) -> dict[str, Tensor]:
        return {"images": sample(lab.model, noise[rows], grid=lab.model.grid(steps), condition=labels[rows]).images}

    images = lab.streamed("samples under classes", source, compute, steps=steps, labels=labels)["images"]
    photos = [Photo.of(image, photo.name) for image, photo in zip(images, source.photos, strict=True)]
    return Pictures(GENERATED, tuple(photos), noise), labels


def _labels(data: Sequence[str], count: int) -> list[Condition] | None:
    """Of the first `count` photographs; None unless all come from parquet files that have them."""
    labels: list[Condition] = []
    for path in find_photos(data):
        found = _column(path, count - len(labels)) if path.suffix == ".parquet" else None
        if found is None:
            return None
        labels += found
        if len(labels) == count:
            break
    return labels or None


def _column(path: Path, count: int) -> list[Condition] | None:
    from pyarrow import ArrowException, parquet

    try:
        if LABEL not in parquet.read_schema(path).names:
            return None
        labels: list[Condition] = parquet.read_table(path, columns=[LABEL]).slice(0, count)[LABEL].to_pylist()
    except (OSError, ArrowException) as error:
        raise ArgumentError(f"cannot read the labels of {path} ({' '.join(str(error).split())[:100]})") from None
    return labels
