"""What `edit` and `variations` work on: pictures to be inverted, or the inversions of a run of `invert`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._tensors import brief
from ..core.batching import OnStep
from ..core.model import Model
from ..core.starts import Start
from ..core.trajectory import Trajectory
from ..methods.starts import AutoStart
from ..pictures.read import Photo, read_mask
from .directory import Run
from .engine import Local
from .manifest import Item, Origin, identity, short_hash
from .names import place_of
from .parts import Batch, item_of, made_parts
from .read_back import read_inverted
from .report import start_place
from .settings import InvertSettings
from .tensor_file import Part

AUTO = "auto"


@brief
@dataclass(frozen=True, eq=False)
class Work:
    """Pictures, a model, and how they are, or were, inverted; `settings` are those of the command itself.

    Of a run, `there` are its inversions, and `known` says where they started.
    """

    model: Model
    inversion: InvertSettings
    items: Sequence[Item]
    pixels: Tensor
    settings: Mapping[str, Any]
    there: Trajectory | None = None
    known: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_photos(cls, model: Model, inversion: InvertSettings, photos: Sequence[Photo]) -> Work:
        """Pictures to be inverted."""
        return cls(model, inversion, [item_of(photo) for photo in photos], torch.stack([photo.pixels for photo in photos]), {})

    @classmethod
    def of_run(cls, place: Path, loading: Callable[[Origin, str], Model], forward: str | None, *, states: bool) -> Work:
        """The inversions of a run of `invert` from one of its starts, with the states that it kept if they are needed.

        Raises:
            RunError, ArgumentError, ModelError: As `read_inverted`.
        """
        inverted = read_inverted(Run.load(place), forward, states=states, loading=loading)
        manifest = inverted.run.manifest
        settings = {"reuses": manifest.key}
        places = manifest.results.get("starts")
        known = {text: str(place) for text, place in places.items()} if isinstance(places, dict) else {}
        return cls(inverted.model, inverted.settings, manifest.items, inverted.images, settings, inverted.trajectory, known)

    @property
    def start(self) -> Start:
        """Where the inversions start; of several starts the last."""
        return self.inversion.starts[self.inversion.forward[-1]]

    @property
    def shared(self) -> dict[str, Any]:
        """Arguments of `edit` and `variations` alike."""
        return {"grid": self.inversion.grid(self.model), "method": self.inversion.inversion}

    @property
    def places(self) -> dict[str, str]:
        """Where the inversions start, for people, by the text of the start; that of an automatic one is known of a run's."""
        text, grid = self.inversion.forward[-1], self.shared["grid"]
        if self.inversion.inversion.inversion is None:
            return {}
        if self.there is not None:
            return {text: self.known[text]} if text in self.known else {}
        return {} if isinstance(self.start, AutoStart) else {text: start_place(text, [self.start.level(grid)], grid)}

    def open(self, command: str, out: Path | None) -> Run:
        """The run directory, new or resumed."""
        text = json.dumps(identity({**self.inversion.model_dump(mode="json"), **self.settings}), sort_keys=True)
        place = place_of(out, command, text, *(item.id for item in self.items))
        return self.inversion.open(place, command, self.items, **self.settings)

    def parts(
        self,
        run: Run,
        function: Callable[..., Mapping[str, Tensor]],
        on_step: OnStep | None,
        seeds: Mapping[str, int],
    ) -> list[list[Part]]:
        """The parts of each seed, made by `function(model, rows, seed, on_step)`; a progress bar counts pictures.

        Args:
            run: Where they are stored.
            function: A batch's tensors.
            on_step: For the progress bar.
            seeds: What the names of a seed's parts begin with -> the seed.
        """
        tiles = [run.tiles(prefix, len(self.items), self.inversion.batch_size) for prefix in seeds]
        work = [
            Batch(key, rows, (rows, seed), rows.stop - rows.start)
            for own, seed in zip(tiles, seeds.values(), strict=True)
            for key, rows in own
        ]
        parts = iter(made_parts(run, Local(self.model), function, work, on_step))
        return [list(islice(parts, len(own))) for own in tiles]


def mask_of(mask: str | None, model: Model) -> tuple[Tensor | str | None, str | None]:
    """A mask, and its name in the manifest."""
    if mask is None or mask == AUTO:
        return mask, mask
    area = read_mask(mask, model.image_size)
    return area, short_hash(repr(area.tolist()))
