"""What a visitor of the page has: a picture, and inversions of it that are kept, so that what follows is quick.

Nothing here knows of a server. Every number is made by `unsample.uses` and `unsample.diagnostics`, with the settings that the
command line would have: the latents are those of `unsample invert`, bit for bit.
"""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.model import Model

from ..core.trajectory import Keep, Trajectory
from ..diagnostics import Diagnosis, diagnose
from ..errors import ArgumentError, ImageError
from ..methods.registry import DEFAULT, PAPER
from ..methods.starts import parse_start
from ..pictures.decode import file_bytes, open_picture, readable
from ..pictures.read import Photo, decode_photo
from ..uses.edit import edit
from ..uses.interpolate import interpolate
from ..uses.invert import invert
from ..uses.sample import sample
from ..uses.variations import variations

MOST_BYTES, MOST_PIXELS = 20_000_000, 50_000_000
"""Of an uploaded file, and of the picture in it, seen before it is decoded."""

MOST_STEPS = 200
"""Of a walk, so that a visitor does not wait for minutes."""


class Stopped(Exception):
    """A visitor wants no more of it."""


@dataclass(frozen=True)
class Way:
    """A way of inverting, as it is called on the page."""

    name: str
    method: str
    start: str


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

    def inverted(self, way: Way, on_state: Callable[[Tensor, int, int], object] | None = None) -> Inverted:
        """There and back; what was made before is kept.

        Args:
            way: How.
            on_state: Called with (state at which the network is asked, moves done, moves in all), as the walk goes on.

        Raises:
            Stopped: `stop` was set.
        """
        if way in self._made:
            return self._made[way]
        model, seen = self._watched()
        given = {"condition": self.label, "steps": self.steps}

        def report(before: int, whole: int) -> Callable[[int, int], None]:
            def on_step(done: int, _total: int) -> None:
                if self.stop.is_set():
                    raise Stopped
                if on_state is not None and seen:
                    on_state(seen[-1], before + done, whole)

            return on_step

        up = self.steps
        start = parse_start(way.start)
        there = invert(
            model,
            self.pixels,
            method=way.method,
            start=start,
            seed=self.seed,
            items=[self.photo.id],
            keep=Keep("states"),
            on_step=report(0, 2 * up),
            **given,
        )
        back = sample(model, there, condition=self.label, on_step=report(up, 2 * up))
        images = back.images.cpu()
        diagnosis = diagnose(there.latent.cpu(), images=self.pixels, reconstruction=images.clamp(-1, 1))
        self._made[way] = Inverted(way, there, images, diagnosis, there.nfe + back.nfe)
        return self._made[way]

    def _watched(self) -> tuple[Model, list[Tensor]]:
        """The model, and the state that its network was last asked about."""
        seen: list[Tensor] = []
        network: Any = self.model.network

        def watching(x: Tensor, *rest: Any, **named: Any) -> Tensor:
            seen[:] = [x[:1].detach()]
            made: Tensor = network(x, *rest, **named)
            return made

        return replace(self.model, network=watching), seen

    def edited(self, to: str, guidance: float, strength: float, mask: Tensor | None = None) -> Tensor:
        """The picture as `to`, (1, channels, height, width), from the inversion that is there.

        Raises:
            ArgumentError: Another class or prompt than the model knows, or what `unsample.edit` refuses.
        """
        there = self.inverted(WAYS[-1]).there
        more = {"guidance": guidance, "strength": strength, "mask": mask}
        return edit(self.model, there, to=to, source=self.label, **more).images.cpu()

    def varied(self, count: int, start: str) -> tuple[Tensor, list[float]]:
        """Other pictures like it, nearest first, and how far they are."""
        made = variations(
            self.model,
            self.pixels,
            seeds=count,
            start=parse_start(start),
            condition=self.label,
            steps=self.steps,
            items=[self.photo.id],
        )
        return made.nearest_first[0].cpu(), made.distances[0].sort().values.tolist()

    def between(self, other: Session, frames: int) -> Tensor:
        """Pictures on the way to another visitor's, or one's own, picture: (frames, channels, height, width)."""
        keys = [each.inverted(WAYS[-1]).latent for each in (self, other)]
        from torch import cat

        return interpolate(self.model, cat(keys), frames=frames, steps=self.steps, condition=self.label).images.cpu()


def commands(session: Session, name: str) -> str:
    """The command line that makes exactly this."""
    given = ["unsample", "invert", session.place.name, "--model", name, "--steps", str(session.steps)]
    given += ["--seed", str(session.seed), "--start", WAYS[-1].start]
    return shlex.join([*given, *(["--label", session.label] if session.label else [])])


def python(session: Session, name: str) -> str:
    """The Python lines that make exactly this."""
    label = f", condition={session.label!r}" if session.label else ""
    return "\n".join(
        [
            "import unsample as us",
            "",
            f"model = us.load({name!r})",
            f"images = us.load_images([{session.place.name!r}], size=model.image_size)",
            f"there = us.invert(model, images, steps={session.steps}, start={WAYS[-1].start!r}, seed={session.seed},",
            f"                  items=[{session.photo.id!r}]{label})",
            f"back = us.sample(model, there{label}).images",
        ]
    )


def ways_up_to(k: int) -> Sequence[Way]:
    """Ours from forward starts of 0 to `k` moves."""
    return [Way(f"{i} moves of noise first", DEFAULT.method, str(i)) for i in range(k + 1)]
