"""Reads the inversions of a run of `unsample invert` back: `read_run(directory).edit(to=...)` does not invert again.

The manifest names the model and its weights; the tensors are the latents, what the method stored beside them and, in a run
that kept them, the states of the way up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from .._tensors import brief
from ..core.batching import OnStep, batches
from ..core.ddim import DDIM
from ..core.files import expanded
from ..core.model import Model
from ..core.starts import Start
from ..core.stored import Stored
from ..core.trajectory import Trajectory
from ..errors import ArgumentError, RunError
from ..methods.starts import parse_start
from ..uses.edit import SOURCE, Edit, FromSource, edit
from ..uses.masks import Mask
from ..uses.sample import Samples, sample
from ..uses.sources import Conditions
from .directory import Run
from .inversions import inverted_tensors, settings_of, starts_of, trajectory_of
from .loading import Loading
from .manifest import MANIFEST, Origin, no_run
from .names import slug
from .parts import stored_of
from .settings import InvertSettings


@brief
@dataclass(frozen=True, eq=False)
class InvertedRun:
    """The inversions that a run of `unsample invert` made from one of its starts.

    Attributes:
        run: Its directory and manifest.
        model: Its model, loaded.
        settings: How it was inverted; `forward` is the one start.
        images: Pixels in [-1, 1], shape (batch, channels, height, width).
        trajectory: The latents and what the method stored; after `with_states` also the states of the way up.
    """

    run: Run
    model: Model = field(repr=False)
    settings: InvertSettings = field(repr=False)
    images: Tensor
    trajectory: Trajectory

    @property
    def items(self) -> list[str]:
        """The ids of its pictures."""
        return [item.id for item in self.run.manifest.items]

    def with_states(self) -> InvertedRun:
        """The same with the states of the way up, the clean ones, which are encoded anew, among them.

        Raises:
            ArgumentError: The run kept none.
        """
        _check_states(self.run, self.settings)
        states = self.trajectory.states or _states(self.run, self.model, self.settings, self.images)
        return replace(self, trajectory=replace(self.trajectory, states=states))

    def edit(
        self,
        *,
        to: Conditions,
        guidance: float = 3.0,
        negative: Conditions | Mapping[int, Tensor] | FromSource = SOURCE,
        strength: float = 1.0,
        mask: Mask | None = None,
        batch_size: int | None = None,
        on_step: OnStep | None = None,
    ) -> Edit:
        """The pictures sampled under `to`, without inverting them again; arguments as in `unsample.edit`.

        Source, grid, method, seed and ids are those of the run, and so is the batch size by default. A mask, or a strength
        below 1, needs the states that `unsample invert --keep states` stores.

        Raises:
            ArgumentError: A run that was inverted with guidance, states that it did not keep, or what `unsample.edit` refuses.
        """
        _check_unguided(self.run, self.settings)
        inverted = self if mask is None and strength >= 1 else self.with_states()
        return edit(
            self.model,
            inverted.trajectory,
            to=to,
            source=self.settings.label,
            guidance=guidance,
            negative=negative,
            strength=strength,
            mask=mask,
            method=self.settings.inversion,
            seed=self.settings.seed,
            items=self.items,
            batch_size=self.settings.batch_size if batch_size is None else batch_size,
            on_step=on_step,
        )

    def sample(
        self,
        *,
        condition: Conditions | FromSource = SOURCE,
        guidance: float | None = None,
        batch_size: int | None = None,
        on_step: OnStep | None = None,
    ) -> Samples:
        """Images sampled back from the latents, by default under the condition and guidance that they were inverted with."""
        return sample(
            self.model,
            self.trajectory,
            condition=self.settings.label if condition is SOURCE else condition,
            guidance=self.settings.guidance if guidance is None else guidance,
            seed=self.settings.seed,
            items=self.items,
            batch_size=self.settings.batch_size if batch_size is None else batch_size,
            on_step=on_step,
        )


def read_run(place: str | Path, start: str | Start | None = None) -> InvertedRun:
    """The inversions in a run directory of `unsample invert`, its model loaded and no network called.

    Args:
        place: The directory.
        start: Which of its starts, as the command line writes it or as an object; default is its last.

    Raises:
        ArgumentError: No run directory, or a start that the run does not have.
        RunError: A run that is not complete, one of another command, or one of other weights than the model has now.
        ModelError: Its model cannot be loaded.
    """
    run = run_in(place)
    if run is None:
        raise ArgumentError(no_run(Path(place)))
    return _read(run, _settings_of(run, start), _loaded)


def run_in(place: object) -> Run | None:
    """The run in `place`; None if that is no path, or no manifest is there.

    Raises:
        RunError: A damaged manifest.
    """
    path = expanded(place) if isinstance(place, (str, Path)) else None
    return Run.load(path) if path and (path / MANIFEST).is_file() else None


def way_back(run: Run, tensors: Mapping[str, Tensor], start: str) -> tuple[str | None, Stored]:
    """How a run of `invert` sampled back from the latents of one start: by which method, and what that stored.

    The method is None where DDIM did it, with nothing but the latents.
    """
    settings = settings_of(run)
    stored = stored_of(_from_start(tensors, start), settings.steps)
    alone = not stored.tensors() and settings.sampler == DDIM()
    return None if alone else settings.method, stored


def _from_start(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The tensors of one start, called as `invert_batch` calls them."""
    return {name.removesuffix(f".{start}"): tensor for name, tensor in tensors.items() if name.endswith(f".{start}")}


def _loaded(origin: Origin, dtype: str) -> Model:
    return Loading(origin, dtype=dtype).load()


def read_inverted(
    run: Run,
    start: str | Start | None = None,
    *,
    states: bool = False,
    loading: Callable[[Origin, str], Model] = _loaded,
) -> InvertedRun:
    """The inversions of a complete run, to be edited; what cannot be edited is refused before its model is loaded.

    Args:
        run: A complete one of `unsample invert`.
        start: Which of its starts; default is its last.
        states: Also the states of the way up, which the run must have kept; the clean ones are encoded anew.
        loading: The model of an origin in a precision; default is `unsample.load`.

    Raises:
        RunError: As `read_run`.
        ArgumentError: As `read_run`; states that the run did not keep; or an inversion with guidance.
        ModelError: Its model cannot be loaded.
    """
    settings = _settings_of(run, start)
    _check_unguided(run, settings)
    if states:
        _check_states(run, settings)
    inverted = _read(run, settings, loading)
    return inverted.with_states() if states else inverted


def _settings_of(run: Run, start: str | Start | None) -> InvertSettings:
    """How a run was inverted from one of its starts."""
    return settings_of(run).model_copy(update={"forward": (_which(run, start),)})


def _check_unguided(run: Run, settings: InvertSettings) -> None:
    if settings.guidance != 1:
        raise ArgumentError(
            f"the run in {run.path} was inverted with guidance {settings.guidance:g}: editing takes one of guidance 1"
        )


def _check_states(run: Run, settings: InvertSettings) -> None:
    if settings.keep not in ("states", "all"):
        raise ArgumentError(
            f"the run in {run.path} kept no states, which a mask and a strength below 1 need: invert with --keep states"
        )


def _read(run: Run, settings: InvertSettings, loading: Callable[[Origin, str], Model]) -> InvertedRun:
    """The model of a run and its tensors, if both still go together."""
    text, tensors = settings.forward[0], inverted_tensors(run)
    origin = run.manifest.origin or Origin(source=settings.model)
    model = loading(origin, settings.dtype)
    if model.digest != settings.model_digest:
        raise RunError(f"the run in {run.path} was made with other weights of {settings.model!r}; invert again with these")
    there = replace(trajectory_of(_from_start(tensors, text), settings, settings.grid(model)), sampler=settings.sampler)
    return InvertedRun(run, model, settings.model_copy(update={"origin": origin}), tensors["images"], there)


def _which(run: Run, start: str | Start | None) -> str:
    """The start of a run that is meant."""
    starts = starts_of(run)
    for text in starts[-1:] if start is None else starts:
        if start is None or start in (text, parse_start(text)):
            return text
    raise ArgumentError(f"the run in {run.path} has the starts {', '.join(starts)}, not {start}")


@torch.no_grad()
def _states(run: Run, model: Model, settings: InvertSettings, images: Tensor) -> dict[int, Tensor]:
    """The states of all its batches, and the clean ones."""
    key, parts = slug(settings.forward[0]), list[Trajectory]()
    while (first := sum(map(len, parts))) < len(images):  # their batches may have had several sizes
        parts.append(Trajectory.load(run.checked(f"trajectories/{key}.{first:06d}.safetensors")))
    clean = [model.codec.encode(images[each].to(model.device)).cpu() for each in batches(len(images), settings.batch_size)]
    return {**Trajectory.cat(parts).states, 0: torch.cat(clean)}
