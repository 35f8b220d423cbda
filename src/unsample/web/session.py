"""What a visitor of the page has: a picture, and inversions of it that are kept, so that what follows is quick.

Nothing here knows of a server. Every number is made by `unsample.uses` and `unsample.diagnostics`, with the settings that the
command line would have: the latents are those of `unsample invert`, bit for bit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.model import Model
from ..core.trajectory import Keep, Trajectory
from ..diagnostics import Diagnosis, diagnose
from ..errors import ArgumentError, ImageError
from ..methods.registry import DEFAULT, PAPER, parse_method
from ..methods.starts import parse_start
from ..pictures.decode import file_bytes, open_picture, readable
from ..pictures.read import Photo, decode_photo
from ..studies.compare import Comparison, compare
from ..uses.edit import edit
from ..uses.interpolate import interpolate
from ..uses.invert import invert
from ..uses.masks import mask_tensor
from ..uses.sample import sample
from ..uses.variations import variations

MOST_BYTES, MOST_PIXELS = 20_000_000, 50_000_000
"""Of an uploaded file, and of the picture in it, seen before it is decoded."""

MOST_STEPS = 200
"""Of a walk, so that a visitor does not wait for minutes."""


OnState = Callable[[Tensor, int, int], object]
"""Called with (state that the network is asked about, moves done, moves in all)."""


class StoppedError(Exception):
    """A visitor wants no more of it."""


@dataclass(frozen=True)
class Way:
    """A way of inverting, as it is called on the page; in as many steps as the session's unless it has its own."""

    name: str
    method: str
    start: str
    steps: int | None = None


WAYS = (
    Way("Usual inversion", "ddim", "0"),
    Way("The paper's", PAPER.method, PAPER.forward),
    Way("Ours", DEFAULT.method, DEFAULT.forward),
)


@dataclass(frozen=True, eq=False)
class Inverted:
    """There and back.

    Attributes:
        way: How.
        there: The inversion, with its states.
        back: What is sampled back, (1, channels, height, width), not clamped.
        diagnosis: The latent beside true noise.
        nfe: Network evaluations, there and back.
    """

    way: Way
    there: Trajectory
    back: Tensor
    diagnosis: Diagnosis
    nfe: int

    @property
    def latent(self) -> Tensor:
        """Shape (1, channels, height, width)."""
        return self.there.latent


@dataclass
class Session:
    """One visitor's picture, model and settings, and what was made of them.

    Attributes:
        model: What inverts.
        photo: The picture.
        place: The file it was read from.
        steps: N.
        label: What it shows, or None.
        seed: Of all noise.
        stop: Set to end what is going on.
    """

    model: Model
    photo: Photo
    place: Path
    steps: int = 50
    label: str | None = None
    seed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _made: dict[Way, Inverted] = field(default_factory=dict)

    @classmethod
    def open(cls, model: Model, place: str | Path, **settings: Any) -> Session:
        """A visitor's own picture, or one that ships.

        Raises:
            ImageError: Too large a file or picture, one that is too small, or none.
            ArgumentError: Settings that do not fit.
        """
        data = file_bytes(place)
        if len(data) > MOST_BYTES:
            raise ImageError(f"the file has {len(data) / 1e6:.0f} MB: expected at most {MOST_BYTES / 1e6:.0f}")
        with readable(Path(place).name), open_picture(data) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ImageError(f"the picture has {opened.width} x {opened.height} pixels: expected at most 50 million")
        made = cls(model, decode_photo(data, Path(place).name, model.image_size), Path(place), **settings)
        if not 1 <= made.steps <= MOST_STEPS:
            raise ArgumentError(f"expected 1 to {MOST_STEPS} steps, given {made.steps}")
        model.denoiser(None if made.label is None else [made.label])
        return made

    @property
    def pixels(self) -> Tensor:
        """Shape (1, 3, height, width) in [-1, 1]."""
        return self.photo.pixels[None]

    def inverted(self, way: Way, on_state: OnState | None = None) -> Inverted:
        """There and back; what was made before is kept.

        Raises:
            StoppedError: `stop` was set.
            ArgumentError: A start beyond the grid.
        """
        if way in self._made:
            return self._made[way]
        seen: list[Tensor] = []
        model, start, steps = self._stoppable(seen), parse_start(way.start), way.steps or self.steps
        grid = model.grid(steps)
        up = parse_method(way.method).moves(grid, start.level(grid).index, steps)

        def report(before: int) -> Callable[[int, int], None]:
            def on_step(done: int, _total: int) -> None:
                if on_state is not None and seen:
                    on_state(seen[-1], before + done, up + steps)

            return on_step

        there = invert(
            model,
            self.pixels,
            condition=self.label,
            steps=steps,
            method=way.method,
            start=start,
            seed=self.seed,
            items=[self.photo.id],
            keep=Keep("states"),
            on_step=report(0),
        )
        back = sample(model, there, condition=self.label, on_step=report(up))
        images = back.images.cpu()
        diagnosis = diagnose(there.latent.cpu(), images=self.pixels, reconstruction=images.clamp(-1, 1))
        self._made[way] = Inverted(way, there, images, diagnosis, there.nfe + back.nfe)
        return self._made[way]

    def made(self, way: Way) -> Inverted | None:
        """What was made before, if it was."""
        return self._made.get(way)

    def _stoppable(self, seen: list[Tensor] | None = None) -> Model:
        """The model, whose network answers until `stop` is set; `seen` is the state that it was last asked about."""
        network: Any = self.model.network

        def asked(x: Tensor, *rest: Any, **named: Any) -> Any:
            if self.stop.is_set():
                raise StoppedError
            if seen is not None:
                seen[:] = [x[:1].detach()]
            return network(x, *rest, **named)

        return replace(self.model, network=asked)

    def edited(self, to: str, guidance: float, strength: float, mask: Any = None) -> Tensor:
        """The picture as `to`, (1, channels, height, width), from the inversion that is there.

        Args:
            to: A class or prompt.
            guidance: As in `unsample.edit`.
            strength: Likewise.
            mask: White where it may change; None for everywhere.

        Raises:
            ArgumentError: Another class or prompt than the model knows, or what `unsample.edit` refuses.
            StoppedError: `stop` was set.
        """
        there = self.inverted(WAYS[-1]).there
        where = None if mask is None else mask_tensor(mask, self.model.image_size)
        if where is not None:  # the background is set back down to the clean state
            clean = self.model.codec.encode(self.pixels.to(self.model.device)).to(there.latent)
            there = replace(there, states={0: clean, **there.states})
        more: dict[str, Any] = {"guidance": guidance, "strength": strength, "mask": where}
        return edit(self._stoppable(), there, to=to, source=self.label, **more).images.cpu()

    def varied(self, count: int, start: str) -> tuple[Tensor, list[float]]:
        """Other pictures like it, nearest first, and how far they are.

        Raises:
            StoppedError: `stop` was set.
        """
        made = variations(
            self._stoppable(),
            self.pixels,
            seeds=count,
            start=parse_start(start),
            condition=self.label,
            steps=self.steps,
            items=[self.photo.id],
        )
        return made.nearest_first[0].cpu(), made.distances[0].sort().values.tolist()

    def between(self, other: Session, frames: int) -> Tensor:
        """Pictures on the way to another one: (frames, channels, height, width).

        Raises:
            StoppedError: `stop` was set.
        """
        keys = torch.cat([each.inverted(WAYS[-1]).latent for each in (self, other)])
        return interpolate(self._stoppable(), keys, frames=frames, steps=self.steps, condition=self.label).images.cpu()

    def compared(self, methods: Sequence[str], nfe: int) -> Comparison:
        """Methods on the picture at equal cost, as `unsample.compare` has them.

        Raises:
            ArgumentError: No method, or too few evaluations.
            StoppedError: `stop` was set.
        """
        if not methods:
            raise ArgumentError("expected at least one method: tick one")
        given: dict[str, Any] = {"methods": list(methods), "nfe": nfe, "condition": self.label, "seed": self.seed}
        return compare(self._stoppable(), [self.photo], **given)


def ways_of(compared: Comparison) -> list[Way]:
    """What was compared, as ways; without those that failed."""
    measured = [one for one, result in compared.candidates.items() if not result.failure]
    return [Way(one.title, one.method, one.forward, one.steps) for one in measured]


def of_k(k: int, method: str = DEFAULT.method) -> Way:
    """From a forward start of `k` moves."""
    return Way(f"{k} moves of noise first", method, str(k))
