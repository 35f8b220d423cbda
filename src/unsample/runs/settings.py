"""The settings of a run: checked against the model before any work is done, parsed once, and written into the manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_jsonable_python

from ..core.corrections import Corrected
from ..core.ddim import DDIM, EvalAt
from ..core.grid import Grid
from ..core.model import Model
from ..core.starts import FromImage, Start
from ..core.stepper import Stepper
from ..core.trajectory import What
from ..errors import ArgumentError, RunError
from ..methods.registry import DEFAULT, parse_method, spelled_out
from ..methods.starts import parse_start
from .directory import Run
from .manifest import Item, Origin, first_fault, identity


def precision_of(model: Model) -> str:
    """The precision that a model's network works in, as the command line writes it."""
    held = [model.network, *getattr(model.network, "__dict__", {}).values()]
    modules = [each for each in held if isinstance(each, torch.nn.Module)]
    first = next((each.dtype for module in modules for each in module.parameters()), torch.float32)
    return str(first).removeprefix("torch.")


class _Settings(BaseModel):
    """Settings that all runs have, as the manifest has them.

    `origin` is where the model came from; runs of the same model and settings are the same run wherever that was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    model_digest: str
    schedule_digest: str
    image_size: tuple[int, int] | None = None
    origin: Origin | None = Field(default=None, exclude=True)
    steps: Annotated[int, Field(ge=1)] = 50
    spacing: str | None = None
    guidance: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    label: str | None = None
    seed: int = 0
    batch_size: Annotated[int, Field(ge=1)] = 16
    device: str = "cpu"
    dtype: str = "float32"

    @classmethod
    def of(cls, model: Model, **settings: Any) -> Any:
        """Settings for a model, checked against it before any work is done.

        Raises:
            ArgumentError: A value out of range, or one that does not fit the model.
        """
        try:
            made = cls(
                model=model.name,
                model_digest=model.digest,
                schedule_digest=model.schedule.digest,
                image_size=model.image_size,
                device=str(model.device),
                **settings,
            )
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).replace("_", "-")
            raise ArgumentError(f"--{name}: {first['msg'].lower()}, given {first['input']!r}") from None
        made.grid(model)
        model.denoiser(None if made.label is None else [made.label], made.guidance)
        return made

    @property
    def key(self) -> str:
        """A text for exactly the settings by which runs are the same, to name a folder."""
        return json.dumps(identity(self.model_dump(mode="json")))

    def grid(self, model: Model) -> Grid:
        """The levels to visit."""
        return model.grid(self.steps, self.spacing)

    def open(self, place: Path, command: str, items: Sequence[Item], **own: Any) -> Run:
        """The run directory of a command with these settings, and those of its `own`: new, or resumed.

        A setting that a run of an earlier version lacks counts as its default; the size of its pictures is not known.

        Raises:
            RunError: The place holds something else.
        """
        defaults = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        mine = {**self.model_dump(mode="json"), **own}
        known = to_jsonable_python({name: value for name, value in defaults.items() if name != "origin"})
        return Run.open(place, command, mine, items, self.origin, known | {"image_size": mine["image_size"]})


class InvertSettings(_Settings):
    """Settings of `invert_run`; `forward` lists the starts to run side by side."""

    method: str = DEFAULT.method
    eval_at: EvalAt | None = None
    forward: tuple[str, ...] = (DEFAULT.forward,)
    keep: What = "latent"

    @classmethod
    def of(cls, model: Model, **settings: Any) -> InvertSettings:
        """As for every run; the method and each start are checked too."""
        settings["method"] = spelled_out(settings.get("method", DEFAULT.method), settings.get("eval_at"))
        made: InvertSettings = super().of(model, **settings)
        _ = made.inversion  # refuses what is no method
        grid = made.grid(model)
        clean = FromImage()
        meant = {clean if start.level(grid) == grid[0] else start for start in made.starts.values()}
        if not meant or len(meant) < len(made.forward):
            raise ArgumentError(f"--start: expected different starts, given {','.join(made.forward) or 'none'}")
        return made

    @classmethod
    def read(cls, run: Run) -> InvertSettings:
        """The settings of an existing run of `invert`, from its manifest.

        Raises:
            RunError: They are not settings of an inversion.
        """
        try:
            made = cls.model_validate_json(json.dumps(run.manifest.settings), strict=True)
        except ValidationError as error:
            raise RunError(f"the manifest of {run.path} is damaged: settings.{first_fault(error)}") from None
        if not made.forward:
            raise RunError(f"the manifest of {run.path} is damaged: settings.forward: expected at least one start")
        return made

    @cached_property
    def inversion(self) -> Stepper | Corrected:
        """The method with its options."""
        return parse_method(self.method) if self.eval_at is None else parse_method(self.method, eval_at=self.eval_at)

    @cached_property
    def sampler(self) -> Stepper:
        """What samples back."""
        return self.inversion.sampler

    @cached_property
    def starts(self) -> dict[str, Start]:
        """Each start by its text."""
        return {text: parse_start(text) for text in self.forward}


class SampleSettings(_Settings):
    """Settings of `sample_images`; `source` says where given latents come from.

    `method` is the one that made them, if it samples back its own way or with what it stored; None is DDIM alone.
    """

    count: Annotated[int, Field(ge=1)] = 16
    source: str | None = None
    method: str | None = None
    negative: str | None = None

    @classmethod
    def of(cls, model: Model, **settings: Any) -> SampleSettings:
        """As for every run; the method and what guidance moves away from are checked too."""
        made: SampleSettings = super().of(model, **settings)
        _ = made.sampler  # refuses what is no method
        if made.negative is not None:
            if made.guidance == 1:
                raise ArgumentError("guidance 1 moves away from nothing: give --guidance, or leave out --negative")
            model.denoiser([made.negative], made.guidance)
        return made

    @cached_property
    def sampler(self) -> Stepper:
        """What walks down."""
        return DDIM() if self.method is None else parse_method(self.method).sampler
