"""Every setting of diffusers' schedulers: what it does to times and levels, and that nothing is passed over in silence."""

import ast
import inspect
import re
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

import unsample as us
from unsample.core.spacing import SPACINGS, parse_spacing
from unsample.models.inversion_schedulers import DDIMInversionScheduler
from unsample.models.scheduler_config import read_scheduler, schedule_of
from unsample.models.scheduler_settings import CLIPPING, FLOW_LEVELS, HARMLESS, LEVELS, REFUSED, USED

from . import tiny
from .agreement import grid_of
from .test_stable_diffusion import QUICK, stable_diffusion

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""Of diffusers' oldest schedulers."""

STEPS = 7
"""Does not divide 1000."""


def settings_of_classes():
    """The settings of every scheduler in the source of the installed diffusers, those that lack a package too."""
    found = {}
    for file in sorted((Path(diffusers.__file__).parent / "schedulers").rglob("*.py")):
        for kind in ast.parse(file.read_text()).body:
            if isinstance(kind, ast.ClassDef) and kind.name.endswith("Scheduler"):
                inits = [each for each in kind.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
                for init in inits:
                    found[kind.name] = {arg.arg for arg in (*init.args.args, *init.args.kwonlyargs)} - {"self"}
    return found


CLASSES = settings_of_classes()

OF_BETAS = sorted(name for name, settings in CLASSES.items() if "beta_schedule" in settings)

LIVE = [name for name in OF_BETAS if name != "DPMSolverSDEScheduler"]
"""Those that can be made without more packages."""


def made(name, **settings):
    kind = getattr(diffusers, name)
    if "skip_prk_steps" in CLASSES[name]:
        settings["skip_prk_steps"] = True  # whose evaluations lie between levels
    return kind(**settings)


def levels_noted(scheduler):
    return [note for note in read_scheduler(scheduler)["notes"] if "; ours are" in note]


# Every key


def test_every_setting_of_every_scheduler_is_known():
    """Used, refused, noted or harmless, of all classes that have betas or are a flow's; the others are refused as they are."""
    assert len(CLASSES) > 40
    assert len(OF_BETAS) > 20
    known = {*USED, *REFUSED, *FLOW_LEVELS, *LEVELS, *CLIPPING, *HARMLESS}
    for name in (*OF_BETAS, "FlowMatchEulerDiscreteScheduler"):
        assert not CLASSES[name] - known, f"{name}: say what becomes of these in scheduler_settings"


def test_schedulers_of_other_kinds_are_refused_in_one_line():
    refused = 0
    for name in set(CLASSES) - {*OF_BETAS, "FlowMatchEulerDiscreteScheduler"}:
        try:
            scheduler = getattr(diffusers, name)()
        except (TypeError, ImportError, AttributeError):  # it has to be given more, or lacks a package
            continue
        with pytest.raises(us.ModelError) as caught:
            read_scheduler(scheduler, flow=None)
        assert "\n" not in str(caught.value)
        refused += 1
    assert refused > 10


def test_a_setting_that_nobody_knows_is_noted():
    class Newer(DDIMScheduler):
        @diffusers.configuration_utils.register_to_config
        def __init__(self, num_train_timesteps=1000, beta_schedule="linear", clip_sample=False, warp=1.0):
            super().__init__(num_train_timesteps, beta_schedule=beta_schedule, clip_sample=clip_sample)
            self.register_to_config(warp=warp)

    assert read_scheduler(Newer())["notes"] == ()
    assert read_scheduler(Newer(warp=2.0))["notes"] == ("the scheduler's warp is not known here, and ignored",)


# The table and its times


@pytest.mark.parametrize("name", LIVE)
def test_the_table_is_the_schedulers_own_even_by_default(name):
    """Reference: its alphas_cumprod. `DDIMScheduler.from_config` leaves out defaults, LCM's and UnCLIP's tables with them."""
    scheduler = made(name)
    if "snr_shift_scale" in CLASSES[name]:
        scheduler = made(name, snr_shift_scale=1.0)
    table = torch.tensor(read_scheduler(scheduler)["schedule"].alpha_bar)
    torch.testing.assert_close(table, scheduler.alphas_cumprod.double(), rtol=0, atol=1e-6, check_dtype=False)
    dropin = DDIMInversionScheduler.from_config(scheduler.config, clip_sample=False)
    torch.testing.assert_close(dropin.alphas_cumprod, scheduler.alphas_cumprod.float(), rtol=0, atol=1e-6)


CONTINUOUS = {"timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_min": 0.002, "sigma_max": 120.0}


@pytest.mark.parametrize(
    ("scheduler", "says"),
    [
        (EulerDiscreteScheduler(**CONTINUOUS), r"timestep_type continuous gives the network log\(sigma\) / 4 as its time"),
        (DDIMScheduler.from_config(EulerDiscreteScheduler(**CONTINUOUS).config), "timestep_type continuous"),
        (CogVideoXDDIMScheduler(), "snr_shift_scale 3.0 makes another table"),
        (EDMEulerScheduler(), "sigma_data 0.5 scales what its network is given"),
    ],
    ids=["continuous", "continuous, from a config", "shifted", "EDM"],
)
def test_a_network_of_other_times_is_refused(scheduler, says):
    """By the model, by the table, and by the scheduler that stands in a pipeline."""
    with pytest.raises(us.ModelError, match=f"cannot use the scheduler {type(scheduler).__name__}: .*{says}") as caught:
        read_scheduler(scheduler)
    assert "\n" not in str(caught.value)
    for make in (schedule_of, DDIMInversionScheduler.from_config):
        with pytest.raises(us.ModelError, match=says):
            make(scheduler.config)


def test_discrete_times_and_no_shift_are_not_refused():
    """Reference: EulerDiscreteScheduler, which with epsilon has discrete times whatever timestep_type says."""
    scheduler = EulerDiscreteScheduler(timestep_type="continuous", timestep_spacing="leading")
    scheduler.set_timesteps(STEPS)
    assert scheduler.timesteps.tolist() == [level.t for level in grid_of(scheduler, STEPS).levels[:0:-1]]
    assert read_scheduler(CogVideoXDDIMScheduler(snr_shift_scale=1.0, clip_sample=False))["notes"] == ()


# The levels of the pipeline's own sampler


def variants(name):
    """Every spacing of a class, and everything that places its levels."""
    yield {}
    spacings = ("leading", "trailing", "linspace") if "timestep_spacing" in CLASSES[name] else ()
    for spacing in spacings:
        if (name, spacing) != ("DDIMInverseScheduler", "linspace"):  # which diffusers refuses
            yield {"timestep_spacing": spacing}
    for setting, (plain, _, _) in LEVELS.items():
        if setting in CLASSES[name] and setting != "original_inference_steps":  # always there
            value = {"interpolation_type": "log_linear", "lambda_min_clipped": -1.0}.get(setting, True)
            assert value not in plain
            yield {setting: value}


@pytest.mark.parametrize("name", LIVE)
def test_levels_are_noted_where_they_are_not_those_of_the_sampler(name):
    """Reference: its own set_timesteps. Log-linear sigmas leave its timesteps as they are, and move the levels alone."""
    for settings in variants(name):
        scheduler = made(name, **settings, **({"snr_shift_scale": 1.0} if "snr_shift_scale" in CLASSES[name] else {}))
        scheduler.set_timesteps(STEPS)
        times = scheduler.timesteps[::2] if name == "KDPM2DiscreteScheduler" else scheduler.timesteps
        grid = [level.t for level in grid_of(scheduler, STEPS).levels[1:]]
        same = np.unique(times.numpy().round(2)).tolist() == grid and "interpolation_type" not in settings
        assert len(levels_noted(scheduler)) == (not same), settings


@pytest.mark.parametrize(
    ("kind", "settings", "note"),
    [
        (
            EulerDiscreteScheduler,
            {"use_karras_sigmas": True},
            "by Karras; ours are leading: --spacing karras is like it",
        ),
        (
            EulerDiscreteScheduler,
            {"use_exponential_sigmas": True},
            "exponentially; ours are leading: --spacing log-snr",
        ),
        (EulerDiscreteScheduler, {"use_beta_sigmas": True}, "spaces its levels by a beta distribution; ours are leading$"),
        (EulerDiscreteScheduler, {}, "spaces its levels by linspace; ours are leading: --spacing linspace is like it"),
        (EulerDiscreteScheduler, {"timestep_spacing": "linspace"}, "has levels between timesteps; ours are linspace$"),
        (DPMSolverMultistepScheduler, {"use_lu_lambdas": True}, "evenly in log SNR; ours are leading: --spacing log-snr"),
        (DPMSolverMultistepScheduler, {"timestep_spacing": "leading"}, "leaves out one of N . 1 levels; ours are leading$"),
        (LCMScheduler, {}, "takes its levels from those of its distillation; ours are leading$"),
    ],
)
def test_notes_say_how_and_what_is_like_it(kind, settings, note):
    with_betas = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, **settings)
    pipeline = stable_diffusion(with_betas, **QUICK)
    (found,) = us.load(pipeline).notes
    assert re.search(f"^the pipeline's own sampler (.* )?{note}", found)


@pytest.mark.parametrize("setting", ["use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas"])
def test_the_spacing_that_is_said_to_be_like_it_is(setting):
    """Reference: diffusers' own times, within two timesteps where the trained ones are dense enough."""
    kind = DPMSolverMultistepScheduler if setting == "use_lu_lambdas" else EulerDiscreteScheduler
    theirs = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **{setting: True})
    theirs.set_timesteps(10)
    ours = parse_spacing(LEVELS[setting][2], schedule_of(theirs.config), 10)
    far = np.abs(np.array(ours) - theirs.timesteps.numpy()[::-1])
    assert far[np.array(ours) > 50].max() <= 2
    assert all(like in ("", *SPACINGS) for _, _, like in LEVELS.values())


def test_an_end_before_the_image_is_noted():
    """Reference: a scheduler's own last level, that of the first trained timestep, where our grid ends at the image."""
    for scheduler in (PNDMScheduler(), UniPCMultistepScheduler(final_sigmas_type="sigma_min", timestep_spacing="trailing")):
        assert grid_of(scheduler, STEPS)[0].sigma == 0
        assert read_scheduler(scheduler)["notes"] == (
            "the pipeline's own sampler ends at the first trained level; ours ends at the image",
        )
    assert read_scheduler(PNDMScheduler(set_alpha_to_one=False))["notes"] == ()


def test_settings_of_a_class_that_it_was_made_of_are_not_noted():
    """A config carries them on; its own class does not use them."""
    karras = EulerDiscreteScheduler(use_karras_sigmas=True, timestep_spacing="leading")
    scheduler = PNDMScheduler.from_config(karras.config, set_alpha_to_one=True)
    assert scheduler.config.use_karras_sigmas
    assert "use_karras_sigmas" not in inspect.signature(PNDMScheduler.__init__).parameters
    assert read_scheduler(scheduler)["notes"] == ()


def test_stable_diffusions_own_schedulers_are_noted_for_nothing():
    for scheduler in (tiny.ddim(), PNDMScheduler(skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)):
        assert read_scheduler(scheduler)["notes"] == ()
