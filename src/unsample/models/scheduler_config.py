"""Reads a diffusers scheduler: the noise schedule a network was trained on and the levels its own sampler visits.

Schedulers are built on betas or on flow matching; `read_scheduler` reads both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from ..core.grid import Grid
from ..core.prediction import Prediction
from ..core.schedule import FlowSchedule, Least, Schedule
from ..errors import ArgumentError, ModelError, UnknownNameError, one_line
from .scheduler_settings import FLOW_LEVELS, notes_of, refusal

_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchInversionScheduler")
"""The schedulers whose levels are those of a `FlowSchedule`: diffusers', and ours that may stand in its place."""


def read_scheduler(
    scheduler: Any, *, flow: bool | None = False, tokens: int | None = None, even: bool = False
) -> dict[str, Any]:
    """Fields of a `Model`: schedule, prediction, spacing, steps_offset, clean, and notes of what is ignored.

    A flow model's network predicts the velocity and is given 1000 t; its schedule is its grid. Diffusers' own pipelines of
    U-Nets and DiT cannot sample with a flow-matching scheduler; what counts is the scheduler's own Euler step.

    Args:
        scheduler: Of diffusers.
        flow: Whether the network is that of a flow model; None takes either kind, whichever the scheduler is for.
        tokens: How many the network makes of a state, on which a dynamic shift depends; None for a network without tokens.
        even: As for `flow_schedule_of`.

    Raises:
        ModelError: A scheduler of the other kind, settings that make no grid, or a dynamic shift without tokens.
    """
    kind = type(scheduler).__name__
    if not ("FlowMatch" in kind if flow is None else flow):
        return _read_betas(scheduler)
    if tokens is None and scheduler.config.get("use_dynamic_shifting"):
        raise ModelError("a U-Net has no tokens for its scheduler's use_dynamic_shifting to count: give a fixed shift")
    config = {**scheduler.config, "_class_name": kind}
    schedule = flow_schedule_of(config, tokens=tokens, even=even)
    return {"schedule": schedule, "prediction": "flow", "notes": notes_of(scheduler)}


def _read_betas(scheduler: Any) -> dict[str, Any]:
    """The fields for a scheduler built on betas: its table, on the grid that diffusers' `DDIMScheduler.from_config` has."""
    from diffusers import DDIMScheduler

    given, kind = scheduler.config, type(scheduler).__name__
    if "beta_schedule" not in given:
        reason = refusal(given) or "expected one with betas, as DDIMScheduler has"
        raise ModelError(f"cannot use the scheduler {kind}: {reason}")
    if "base_image_seq_len" in given:  # DDIMPipeline does so without a word
        raise ModelError(f"the pipeline has made a {kind} of a flow-matching scheduler: save the network as a DDPMPipeline")
    try:
        config = DDIMScheduler.from_config(given).config
        # of `given`, because from_config leaves out defaults: those of LCMScheduler are another table
        schedule, prediction = schedule_of(given), given.get("prediction_type", "epsilon")
        if prediction not in get_args(Prediction):
            raise UnknownNameError("prediction type", prediction, get_args(Prediction))
        grid: dict[str, Any] = {
            "spacing": config["timestep_spacing"],
            "steps_offset": config["steps_offset"],
            "clean": "one" if config["set_alpha_to_one"] else "first",
        }
        Grid.of(schedule, 1, **grid)
    except (ValueError, TypeError, AttributeError, NotImplementedError, ModelError) as error:
        raise ModelError(f"cannot use the scheduler {kind}: {one_line(error)}") from None
    notes = notes_of(scheduler, grid["spacing"], grid["clean"])
    return {"schedule": schedule, "prediction": prediction, **grid, "notes": notes}


def schedule_of(config: Mapping[str, Any]) -> Schedule:
    """The schedule of the config of any diffusers scheduler of betas.

    Raises:
        ModelError: The config has no betas, is that of a flow model, or its network is not one of timesteps of their table.
        UnknownNameError: An unknown `beta_schedule`.

    >>> len(schedule_of({"beta_schedule": "scaled_linear", "num_train_timesteps": 500}))
    500
    """
    if config.get("use_flow_sigmas") or str(config.get("prediction_type")).startswith("flow"):
        raise ModelError(
            "expected a scheduler config of betas, given one whose network predicts a flow velocity; make a FlowSchedule, "
            "or use flow_schedule_of for a FlowMatchEulerDiscreteScheduler"
        )
    reason = refusal(config)
    if reason:
        raise ModelError(
            f"expected a scheduler config whose network takes the timesteps of its betas, given one where {reason}; "
            "bring the network with unsample.Model.from_callable"
        )
    zero_snr = bool(config.get("rescale_betas_zero_snr", False))
    if config.get("trained_betas") is not None:
        return Schedule.from_betas(config["trained_betas"], zero_terminal_snr=zero_snr)
    if "beta_schedule" not in config:
        raise ModelError(
            "expected a scheduler config with 'beta_schedule' or 'trained_betas', "
            f"given one with {', '.join(sorted(config)) or 'nothing'}; use flow_schedule_of for a flow-matching scheduler"
        )
    makers = {
        "linear": Schedule.linear_betas,
        "scaled_linear": Schedule.scaled_linear_betas,
        "squaredcos_cap_v2": lambda _start, _end, count: Schedule.cosine_betas(count),
    }
    kind = str(config["beta_schedule"])
    if kind not in makers:
        raise UnknownNameError("beta_schedule", kind, makers)
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    betas = makers[kind](start, end, int(config.get("num_train_timesteps", 1000)))
    return Schedule.from_betas(betas, zero_terminal_snr=zero_snr)


def flow_schedule_of(config: Mapping[str, Any], *, tokens: int | None = None, even: bool = False) -> FlowSchedule:
    """The schedule of the config of a `FlowMatchEulerDiscreteScheduler`.

    Args:
        config: The scheduler's.
        tokens: How many tokens the network makes of an image; only a dynamic shift depends on it.
        even: The scheduler is given even times from 1 to 1 / N, as FLUX's pipeline does, instead of N alone.

    Raises:
        ModelError: Another scheduler, or options that change its levels: Karras sigmas and so on.
        ArgumentError: A dynamic shift without `tokens`.

    >>> config = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    >>> round(flow_schedule_of(config, tokens=4096).shift, 4)
    3.1582
    """
    kind = config.get("_class_name", _FLOWS[0])
    if kind not in _FLOWS or "shift" not in config:
        raise ModelError(
            f"expected a config of FlowMatchEulerDiscreteScheduler, with its shift, "
            f"given one of {kind} with {', '.join(sorted(config)) or 'nothing'}"
        )
    refused = [name for name in FLOW_LEVELS if config.get(name)]
    if refused:
        raise ModelError(
            f"a flow-matching scheduler with {', '.join(refused)} is not supported; make a FlowSchedule, "
            "and a grid of its levels with Grid.from_sigmas"
        )
    dynamic = bool(config.get("use_dynamic_shifting"))
    shift = _dynamic_shift(config, tokens) if dynamic else float(config["shift"])
    least: Least = "even" if even else "trained" if dynamic else "shifted"
    return FlowSchedule(int(config.get("num_train_timesteps", 1000)), shift, least)


def _dynamic_shift(config: Mapping[str, Any], tokens: int | None) -> float:
    """The shift of images of so many tokens: exp(mu), or mu where `time_shift_type` is linear, and mu linear in `tokens`."""
    if tokens is None:
        raise ArgumentError("a flow-matching scheduler with use_dynamic_shifting shifts by the image's size: give its tokens")
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    mu = float(low + (high - low) * (tokens - few) / (many - few))
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)
