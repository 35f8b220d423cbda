"""Jobs for workers that have nothing yet but the place of a dataset: its plan says the rest."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from ..core.model import Model
from ..errors import RunError
from ..runs.loading import Loading
from ..runs.manifest import first_fault
from ..runs.settings import InvertSettings, SampleSettings
from .invert import InvertJob
from .plan import Plan
from .sample import SampleJob
from .shards import lines_of
from .store import Store


def settings_of(kind: type[Any], plan: Plan) -> Any:
    """The settings of a plan.

    Raises:
        RunError: They are none.
    """
    try:
        return kind.model_validate_json(json.dumps(plan.settings), strict=True)
    except ValidationError as error:
        raise RunError(
            f"the plan is damaged: settings.{first_fault(error)}; give the command that made it again, with another --out"
        ) from None


def invert_job(out: str, loading: Loading, batch_size: int, strict: bool) -> InvertJob:
    """The job of `out`, for a worker that has nothing yet."""
    store = Store(out)
    plan = Plan.read(store)
    settings = settings_of(InvertSettings, plan).model_copy(update={"batch_size": batch_size})
    return InvertJob(_model(loading, settings), settings, plan, plan.read_source(store), store, strict)


def sample_job(out: str, loading: Loading, batch_size: int) -> SampleJob:
    """The same of pictures."""
    store = Store(out)
    plan = Plan.read(store)
    settings = settings_of(SampleSettings, plan).model_copy(update={"batch_size": batch_size})
    noise = Store(plan.places[0])
    there = Plan.read(noise)
    model, own = _model(loading, settings), plan.columns.condition is not None
    reuses = settings.steps == there.settings.get("steps")
    return SampleJob(model, settings, plan, noise, store, own, lines_of(noise, there), reuses)


def _model(loading: Loading, settings: InvertSettings | SampleSettings) -> Model:
    """The model of the settings, loaded where the job is.

    Raises:
        RunError: It has other weights.
    """
    model = loading.load()
    if model.digest != settings.model_digest:
        raise RunError(f"the dataset was made with other weights of {model.name!r}; give that model, or another --out")
    return model
