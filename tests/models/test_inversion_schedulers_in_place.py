"""Our schedulers stand where diffusers' own do: what its pipelines and its common tests of schedulers ask of every one.

After `SchedulerCommonTest` of diffusers' tests/schedulers/test_schedulers.py, but for clipping, and for steps from timesteps
that are not on the grid.
"""

import inspect
import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    KandinskyV22Pipeline,
    LCMScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import retrieve_timesteps

import unsample as us
from unsample.models.inversion_schedulers import DDIMInversionScheduler, FlowMatchInversionScheduler

from . import tiny
from .test_flux import flux
from .test_stable_diffusion import QUICK, stable_diffusion
from .test_stable_diffusion_3 import stable_diffusion_3

KINDS = {DDIMInversionScheduler: DDIMScheduler, FlowMatchInversionScheduler: FlowMatchEulerDiscreteScheduler}
"""Ours, and what each stands for."""

CONFIGS = [
    (DDIMInversionScheduler, {}),
    *((DDIMInversionScheduler, {"num_train_timesteps": count}) for count in (100, 500)),
    *((DDIMInversionScheduler, {"beta_start": a, "beta_end": b}) for a, b in ((0.001, 0.02), (0.1, 0.2))),
    *((DDIMInversionScheduler, {"beta_schedule": name}) for name in ("scaled_linear", "squaredcos_cap_v2")),
    *((DDIMInversionScheduler, {"prediction_type": name}) for name in ("v_prediction", "sample")),
    *((DDIMInversionScheduler, {"timestep_spacing": name}) for name in ("trailing", "linspace")),
    (DDIMInversionScheduler, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    (DDIMInversionScheduler, {"steps_offset": 1, "set_alpha_to_one": False}),
    (DDIMInversionScheduler, {"clip_sample": False, "thresholding": False, "dynamic_thresholding_ratio": 0.9}),
    (FlowMatchInversionScheduler, {}),
    (FlowMatchInversionScheduler, {"shift": 3.0, "shift_terminal": None, "use_karras_sigmas": False}),
    (FlowMatchInversionScheduler, {"num_train_timesteps": 500, "stochastic_sampling": False}),
]

kinds = pytest.mark.parametrize("kind", KINDS)

configs = pytest.mark.parametrize(("kind", "config"), CONFIGS, ids=str)


def sample():
    return torch.rand((4, 3, 8, 8), generator=torch.Generator().manual_seed(0))


def network(x, t):
    """The stand-in for a network of diffusers' own tests."""
    return x * t / (t + 1)


def loop(scheduler, x, **arguments):
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x, **arguments).prev_sample
    return x


# Settings


@kinds
def test_it_takes_every_setting_of_the_scheduler_it_stands_for(kind):
    own = inspect.signature(kind.__init__).parameters
    theirs = inspect.signature(KINDS[kind].__init__).parameters
    assert not set(theirs) - set(own)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in own.values())
    off = {"clip_sample"}  # which clips by default there
    assert {name: own[name].default for name in theirs if name not in {"self", *off}} == {
        name: each.default for name, each in theirs.items() if name not in {"self", *off}
    }
    kind(**{name: each.default for name, each in theirs.items() if name not in {"self", *off}})


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (
            lambda: DDIMInversionScheduler(clip_sample=True),
            us.ArgumentError,
            "expected clip_sample=False, given True: what",
        ),
        (lambda: DDIMInversionScheduler(thresholding=True), us.ArgumentError, "expected thresholding=False, given True"),
        (lambda: FlowMatchInversionScheduler(use_beta_sigmas=True), us.ModelError, "with use_beta_sigmas is not supported"),
        (lambda: FlowMatchInversionScheduler(shift_terminal=0.1), us.ModelError, "with shift_terminal is not supported"),
    ],
)
def test_settings_that_cannot_be_undone_are_refused(make, error, says):
    with pytest.raises(error, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [DDIMScheduler, DDPMScheduler])
@pytest.mark.parametrize("given", [{}, {"clip_sample": True}])
def test_a_config_that_clips_is_taken_with_a_warning_and_given_back(kind, given):
    """By default these clip, too. What is made of the inversion scheduler's config clips as before."""
    config = kind(**given).config
    with pytest.warns(UserWarning, match="DDIMInversionScheduler leaves out clip_sample: what it clips cannot be undone"):
        scheduler = DDIMInversionScheduler.from_config(config)
    assert kind.from_config(scheduler.config).config.clip_sample
    assert DDIMInversionScheduler.from_config(config, clip_sample=False).config.clip_sample is False


@configs
def test_a_saved_one_is_the_same(kind, config, tmp_path):
    scheduler = kind(**config)
    scheduler.save_pretrained(tmp_path)
    again = kind.from_pretrained(tmp_path)
    expected = {name: value for name, value in scheduler.config.items() if name != "_use_default_values"}
    assert dict(again.config) == expected
    for each in (scheduler, again):
        each.set_timesteps(10)
    assert torch.equal(loop(scheduler, sample()), loop(again, sample()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of diffusers' oldest schedulers
@kinds
def test_compatible_schedulers_are_made_of_its_config_and_it_of_theirs(kind):
    betas = {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "clip_sample": False,
    }
    scheduler = kind(**(betas if kind is DDIMInversionScheduler else {"shift": 2.0}))
    assert KINDS[kind] in scheduler.compatibles
    for other in scheduler.compatibles:
        if "dummy" in other.__module__:  # needs another package
            continue
        theirs = other.from_config(scheduler.config)
        again = kind.from_config(theirs.config)
        assert {name: again.config[name] for name in scheduler.config} == dict(scheduler.config)


def test_trained_betas_are_kept(tmp_path):
    scheduler = DDIMInversionScheduler(trained_betas=np.array([0.1, 0.3]))
    scheduler.save_pretrained(tmp_path)
    assert scheduler.betas.tolist() == DDIMInversionScheduler.from_pretrained(tmp_path).betas.tolist()
    torch.testing.assert_close(scheduler.betas, torch.tensor([0.1, 0.3]))
    torch.testing.assert_close(scheduler.alphas_cumprod, torch.tensor([0.9, 0.63]))


@pytest.mark.parametrize("settings", [{}, {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}], ids=str)
def test_tables_are_those_of_diffusers(settings):
    """Reference: DDIMScheduler's attributes, float32."""
    ours, theirs = DDIMInversionScheduler(**settings), DDIMScheduler(**settings)
    torch.testing.assert_close(ours.alphas_cumprod, theirs.alphas_cumprod, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.betas[:-1], theirs.betas[:-1], rtol=0, atol=1e-5)  # the last level is never quite 0 here


def test_a_table_that_is_its_makers_default_is_kept():
    """Reference: LCMScheduler's own table. `from_config` alone drops defaults, and would make the default table of another."""
    lcm = LCMScheduler()
    ours = DDIMInversionScheduler.from_config(lcm.config)
    torch.testing.assert_close(ours.alphas_cumprod, lcm.alphas_cumprod, rtol=0, atol=1e-6)


@kinds
def test_attributes(kind):
    scheduler = kind()
    scheduler.dummy = 5
    scheduler.register_to_config(setting=5)
    assert scheduler.dummy == 5
    assert scheduler.save_pretrained == scheduler.save_pretrained
    with pytest.warns(FutureWarning):
        assert scheduler.setting == 5
    with pytest.raises(AttributeError, match=f"'{kind.__name__}' object has no attribute 'nothing'"):
        _ = scheduler.nothing
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.scale_model_input(sample(), 0.0).shape == sample().shape


# Steps


@configs
@pytest.mark.parametrize("n", [1, 2, 3, 10, 50, 100])
def test_a_full_loop_is_finite(kind, config, n):
    scheduler = kind(**config)
    scheduler.set_timesteps(n)
    assert len(scheduler.timesteps) == scheduler.num_inference_steps == n
    assert bool(loop(scheduler, sample()).isfinite().all())


@pytest.mark.parametrize(("offset", "times"), [(0, [0, 200, 400, 600, 800]), (1, [1, 201, 401, 601, 801])])
def test_offsets(offset, times):
    """Reference: the timesteps of diffusers' DDIMInverseScheduler of the same settings."""
    scheduler = DDIMInversionScheduler(steps_offset=offset)
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == times


@kinds
def test_time_indices_and_shapes(kind):
    """One step from any timestep of the grid, then the next."""
    scheduler = kind()
    for index in (0, 1, 10, 48):
        scheduler.set_timesteps(50)
        for i in (index, index + 1):
            output = scheduler.step(0.1 * sample(), scheduler.timesteps[i], sample())
            assert output.prev_sample.shape == sample().shape


@kinds
def test_before_set_timesteps_there_is_no_step(kind):
    with pytest.raises(us.ArgumentError, match="call set_timesteps first"):
        kind().step(sample(), 0, sample())


@kinds
def test_a_result_by_name_is_the_one_in_a_tuple(kind):
    found = []
    for as_dict in (True, False):
        scheduler = kind()
        scheduler.set_timesteps(50)
        found.append(scheduler.step(0.1 * sample(), scheduler.timesteps[0], sample(), return_dict=as_dict))
    named, row = found
    assert isinstance(row, tuple)
    assert len(row) == 1
    assert torch.equal(named.prev_sample, named[0])
    assert torch.equal(named[0], row[0])


@kinds
def test_set_timesteps_twice_and_on_a_device(kind):
    scheduler = kind()
    scheduler.set_timesteps(7)
    first, once = scheduler.timesteps.clone(), loop(scheduler, sample())
    scheduler.set_timesteps(3)
    scheduler.set_timesteps(7, device="meta")
    assert scheduler.timesteps.device.type == "meta"
    scheduler.set_timesteps(7, device="cpu")
    assert torch.equal(scheduler.timesteps, first)
    assert torch.equal(loop(scheduler, sample()), once)


@kinds
def test_noise_at_a_timestep(kind):
    scheduler = kind()
    scheduler.set_timesteps(100)
    noised = scheduler.add_noise(sample(), torch.randn_like(sample()), scheduler.timesteps[5][None])
    assert noised.shape == sample().shape
    assert noised.device == sample().device


# What pipelines give a step and a schedule


@kinds
def test_what_a_deterministic_move_does_not_need_is_taken_without_a_word(kind):
    """Arguments of DDIMScheduler, DDPMScheduler and Euler's at the values by which these make no noise, by name and place."""
    scheduler, plain = kind(), kind()
    for each in (scheduler, plain):
        each.set_timesteps(5)
    given = {
        **{"generator": torch.Generator().manual_seed(0), "variance_noise": sample(), "use_clipped_model_output": True},
        **{"eta": 0.0, "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": float("inf"), "s_noise": 1.0, "prev_timestep": None},
    }
    assert torch.equal(loop(scheduler, sample(), **given), loop(plain, sample()))
    plain.set_timesteps(5)
    scheduler.set_timesteps(5)
    t = scheduler.timesteps[0]
    by_place = scheduler.step(0.1 * sample(), t, sample(), 0.0, False, None, None, False)
    assert torch.equal(by_place[0], plain.step(0.1 * sample(), t, sample()).prev_sample)
    assert list(inspect.signature(DDIMScheduler.step).parameters) == [*inspect.signature(kind.step).parameters][:-1]


@kinds
@pytest.mark.parametrize(
    ("name", "value", "said"), [("eta", 0.3, "0.3"), ("s_churn", 2, "2"), ("per_token_timesteps", torch.ones(2), "Tensor")]
)
def test_what_would_change_the_result_is_ignored_with_one_warning(kind, name, value, said):
    scheduler, plain = kind(), kind()
    for each in (scheduler, plain):
        each.set_timesteps(5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = loop(scheduler, sample(), **{name: value})
    assert [str(each.message) for each in caught] == [
        f"{kind.__name__}.step ignores {name}={said}: its moves are those of DDIM"
    ]
    assert torch.equal(found, loop(plain, sample()))


def kandinsky():
    """Kandinsky 2.2's decoder, which gives `step` a generator whatever the scheduler; it takes latents."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        in_channels=4,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(32, 64),
        layers_per_block=1,
        encoder_hid_dim=32,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=32,
        attention_head_dim=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    ).eval()
    movq = VQModel(block_out_channels=(8, 16), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2)
    pipeline = KandinskyV22Pipeline(unet=unet, scheduler=tiny.ddim(), movq=movq)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_pipeline_that_gives_step_a_generator_inverts():
    """Reference: the same network up our grid, by `walk`."""
    pipeline = kandinsky()
    embedding, x0 = torch.randn(1, 32), torch.randn(1, 4, 8, 8)
    scheduler = DDIMInversionScheduler.from_config(pipeline.scheduler.config)
    pipeline.scheduler = scheduler
    found = pipeline(
        image_embeds=embedding,
        negative_image_embeds=embedding,
        latents=x0,
        height=16,
        width=16,
        num_inference_steps=3,
        guidance_scale=1.0,
        output_type="latent",
    ).images

    def eps(x, level):
        time = torch.tensor(int(level.t))
        given = {"added_cond_kwargs": {"image_embeds": embedding}, "encoder_hidden_states": None}
        return pipeline.unet(x, time, return_dict=False, **given)[0][:, :4]

    grid = us.Grid.of(scheduler._schedule, 3, steps_offset=1, clean="first")
    with torch.no_grad():
        *_, last = us.walk(eps, x0, grid.up(), us.DDIM())
    torch.testing.assert_close(found, last.x, rtol=0, atol=1e-5)


PIPELINES = {
    "stable diffusion": (lambda: stable_diffusion(**QUICK), DDIMInversionScheduler),
    "stable diffusion 3": (stable_diffusion_3, FlowMatchInversionScheduler),
    "stable diffusion 3, by size": (
        lambda: stable_diffusion_3(tiny.flow(use_dynamic_shifting=True)),
        FlowMatchInversionScheduler,
    ),
    "flux": (lambda: flux(guided=False), FlowMatchInversionScheduler),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_with_the_scheduler_left_in_is_a_model(name):
    """Reference: the model of the pipeline with its own scheduler."""
    make, kind = PIPELINES[name]
    pipeline = make()
    own = us.load(pipeline)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, forward_steps=1)
    ours = us.load(pipeline)
    assert (ours.schedule, ours.prediction, ours.notes) == (own.schedule, own.prediction, own.notes)
    assert ours.grid(5) == own.grid(5)


@pytest.mark.parametrize("clean", [True, False])
def test_timesteps_of_ones_own(clean):
    """Reference: our walk up the grid of the same timesteps; pipelines pass on those that the sampler is given."""
    falling = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]  # "align your steps", of Stable Diffusion 1
    scheduler = DDIMInversionScheduler(set_alpha_to_one=clean)
    rising, steps = retrieve_timesteps(scheduler, device="cpu", timesteps=falling)
    assert (rising.tolist(), steps) == (falling[::-1], 10)
    grid = us.Grid.from_timesteps(scheduler._schedule, falling[::-1], clean="one" if clean else "first")
    *_, last = us.walk(lambda x, level: network(x, level.t), sample(), grid.up(), us.DDIM())
    assert torch.equal(loop(scheduler, sample()), last.x)
    scheduler.set_timesteps(10, timesteps=torch.tensor(falling), sigmas=None)
    assert scheduler.timesteps.tolist() == falling[::-1]


@pytest.mark.parametrize(
    ("scheduler", "given", "says"),
    [
        (
            DDIMInversionScheduler(),
            {"sigmas": [1.0, 0.5]},
            "does not take sigmas here: give num_inference_steps or timesteps$",
        ),
        (DDIMInversionScheduler(), {"mu": 1.0}, "does not take mu here"),
        (DDIMInversionScheduler(), {}, "steps must be a whole number from 1"),
        (
            DDIMInversionScheduler(),
            {"timesteps": [24, 999]},
            "expected some timesteps that fall within 0..999, given .24",
        ),
        (DDIMInversionScheduler(), {"timesteps": [1000, 24]}, "fall within 0..999"),
        (DDIMInversionScheduler(), {"timesteps": [900.5, 24]}, "fall within 0..999"),
        (DDIMInversionScheduler(), {"timesteps": []}, "fall within 0..999"),
        (DDIMInversionScheduler(), {"timesteps": [9, 5], "num_inference_steps": 3}, "expected 3 timesteps that fall"),
        (DDIMInversionScheduler(moves="ddim"), {"timesteps": [9, 5]}, "moves='ddim' undoes DDIMScheduler, which takes no"),
        (
            FlowMatchInversionScheduler(),
            {"timesteps": [900.0, 5.0]},
            "does not take timesteps here",
        ),
    ],
)
def test_schedules_that_cannot_be(scheduler, given, says, untyped):
    with pytest.raises(us.ArgumentError, match=says) as caught:
        scheduler.set_timesteps(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "given"), [(DDIMInversionScheduler(), "sigmas"), (FlowMatchInversionScheduler(), "timesteps")]
)
def test_pipelines_say_which_schedules_cannot_be(scheduler, given):
    """Reference: diffusers, which looks at the arguments of set_timesteps."""
    with pytest.raises(ValueError, match=r"does not support custom"):
        retrieve_timesteps(scheduler, device="cpu", **{given: [0.9, 0.5]})
