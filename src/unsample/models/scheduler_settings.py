"""What becomes of each setting of diffusers' schedulers: used, refused, noted, or without effect here.

A setting is refused where the network would be called at other times than those of its table, or the table is not the one of
the betas; it is noted where only the levels of the pipeline's own sampler differ from ours. A test holds the tables against
every scheduler of the installed diffusers, so that no setting is passed over in silence.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .notes import clipping_ignored

USED = frozenset(
    (
        *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr"),
        *("prediction_type", "use_flow_sigmas", "timestep_spacing", "steps_offset", "set_alpha_to_one", "final_sigmas_type"),
        *("shift", "use_dynamic_shifting", "time_shift_type"),
        *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
    )
)
"""Read by `scheduler_config`."""

REFUSED = frozenset(("timestep_type", "snr_shift_scale", "sigma_data"))
"""Refused where they have an effect, by `refusal`."""

FLOW_LEVELS = (
    *("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
    *("invert_sigmas", "stochastic_sampling"),
)
"""Settings of `FlowMatchEulerDiscreteScheduler` that change its levels or its moves, which a flow schedule cannot: refused."""

LEVELS: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "use_karras_sigmas": ((None, False), "spaces its levels by Karras", "karras"),
    "use_exponential_sigmas": ((None, False), "spaces its levels exponentially", "log-snr"),
    "use_lu_lambdas": ((None, False), "spaces its levels evenly in log SNR", "log-snr"),
    "use_beta_sigmas": ((None, False), "spaces its levels by a beta distribution", ""),
    "interpolation_type": ((None, "linear"), "spaces its levels log-linearly", "log-snr"),
    "original_inference_steps": ((None,), "takes its levels from those of its distillation", ""),
    "lambda_min_clipped": ((None, -math.inf), "leaves out the noisiest levels", ""),
}
"""What places the levels of a sampler: the values that do not, what the others do, and our spacing that is like it, if any."""

CLIPPING = ("clip_sample", "thresholding")
"""Noted where they are on."""

HARMLESS = frozenset(
    (
        # which solver makes the moves, and how
        *("solver_order", "solver_type", "algorithm_type", "lower_order_final", "euler_at_final", "predict_x0", "solver_p"),
        *("disable_corrector", "predictor_order", "corrector_order", "skip_prk_steps", "timestep_scaling"),
        # its noise
        *("variance_type", "eta", "tau_func", "noise_sampler_seed"),
        # how far it clips, if it does
        *("clip_sample_range", "dynamic_thresholding_ratio", "sample_max_value"),
        # ends of Karras's and other sigmas, where these are on
        *("sigma_min", "sigma_max"),
        # options of use_flow_sigmas, which itself is refused of a scheduler with betas
        *("flow_shift", "shift_terminal"),
        # of our own inversion schedulers
        *("forward_steps", "eval_at", "moves"),
    )
)
"""Without effect on the levels of a table, or where it would matter known by another setting."""

_LINSPACE = frozenset(("UnCLIPScheduler", "DPMSolverSinglestepScheduler"))
"""Of the schedulers without `timestep_spacing`, those that are not leading."""

_ONE_MORE = frozenset(
    (
        *("DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler", "DPMSolverSinglestepScheduler"),
        *("DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"),
    )
)
"""Of N + 1 levels these leave out one, unless they are trailing."""

_BETWEEN = frozenset(
    (
        *("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"),
        *("KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"),
    )
)
"""With linspace these call the network between timesteps."""


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why the network of a config of betas is not one of timesteps of their table, in words; None where it is."""
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        return "timestep_type continuous gives the network log(sigma) / 4 as its time, not a trained timestep"
    if config.get("snr_shift_scale") not in (None, 1):
        return f"snr_shift_scale {config['snr_shift_scale']} makes another table of its betas"
    if config.get("sigma_data") is not None:
        return f"sigma_data {config['sigma_data']} scales what its network is given and answers, as EDM does"
    return None


def notes_of(scheduler: Any, spacing: str | None = None, clean: str | None = None) -> tuple[str, ...]:
    """What a scheduler of diffusers is set to and a model does otherwise; `spacing` and `clean` are those of its grid.

    Only settings of its own class count: a config also carries those of classes that it was made from.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(scheduler).__init__).parameters.items()
        if name in scheduler.config
    }
    own = {name: scheduler.config[name] for name in defaults}
    kinds = {kind.__name__ for kind in type(scheduler).__mro__}
    notes = [clipping_ignored(f"the scheduler's {name}") for name in CLIPPING if own.get(name)]
    if spacing is not None:
        own.setdefault("timestep_spacing", "linspace" if kinds & _LINSPACE else "leading")
        notes.extend(_levels(kinds, own, spacing, clean))
    known = USED.union(REFUSED, FLOW_LEVELS, LEVELS, CLIPPING, HARMLESS)
    notes.extend(
        f"the scheduler's {name} is not known here, and ignored"
        for name, default in defaults.items()
        if name not in known and own[name] != default
    )
    return tuple(notes)


def _levels(kinds: set[str], own: Mapping[str, Any], spacing: str, clean: str | None) -> Iterator[str]:
    """Where the levels of the pipeline's own sampler lie, if not where ours do, and how to come near."""
    theirs, like = own["timestep_spacing"], ""
    placed = next((name for name, (plain, _, _) in LEVELS.items() if name in own and own[name] not in plain), None)
    if placed:
        _, does, like = LEVELS[placed]
    elif theirs != spacing:
        does, like = f"spaces its levels by {theirs}", theirs
    elif theirs != "trailing" and kinds & _ONE_MORE:
        does = "leaves out one of N + 1 levels"
    elif theirs == "linspace" and kinds & _BETWEEN:
        does = "has levels between timesteps"
    else:
        does = ""
    if does:
        yield f"the pipeline's own sampler {does}; ours are {spacing}" + (f": --spacing {like} is like it" if like else "")
    ends_early = own.get("final_sigmas_type") == "sigma_min" or own.get("set_alpha_to_one") is False
    if ends_early and clean == "one":
        yield "the pipeline's own sampler ends at the first trained level; ours ends at the image"
