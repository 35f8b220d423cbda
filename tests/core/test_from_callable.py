"""`Model.from_callable`: any function or module that predicts is a model."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from torch import nn

import unsample as us
from unsample.models.analytic import gaussian, mixture
from unsample.models.scheduler_config import schedule_of

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())
VARIANCE = 0.09
SHAPE = (1, 4, 4)


def scales(t):
    """Alpha and sigma at timesteps of the table, (batch, 1, 1, 1)."""
    alpha_bar = torch.tensor(SCHEDULE.alpha_bar, dtype=torch.float64)[t].reshape(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def best_eps(x, t):
    """Of Gaussian data without a mean."""
    alpha, sigma = scales(t)
    return sigma * x / (alpha**2 * VARIANCE + sigma**2)


def best_v(x, t):
    alpha, sigma = scales(t)
    return alpha * best_eps(x, t) - sigma * (x - sigma * best_eps(x, t)) / alpha


def best_x0(x, t):
    alpha, sigma = scales(t)
    return (x - sigma * best_eps(x, t)) / alpha


def best_velocity(x, t):
    sigma = t.double().reshape(-1, 1, 1, 1) / 1000
    alpha = 1 - sigma
    return (sigma - alpha * VARIANCE) * x / (alpha**2 * VARIANCE + sigma**2).clamp_min(1e-24)


def pictures(count, dtype=torch.float64):
    noise = us.ItemNoise(0, range(count)).draw((count, *SHAPE), stream="data", dtype=torch.float64)
    return (math.sqrt(VARIANCE) * noise).to(dtype)


class Affine(nn.Module):
    """A module of two arguments: a weighted state."""

    def __init__(self, channels=1, outputs=1):
        super().__init__()
        self.mix = nn.Conv2d(channels, outputs, 1)
        self.drop = nn.Dropout(0.5)
        self.given = []

    def forward(self, x, t):
        self.given.append((x.dtype, t.dtype))
        return self.drop(self.mix(x))


@pytest.mark.parametrize(
    ("net", "settings"),
    [
        (best_eps, {}),
        (best_v, {"prediction": "v_prediction"}),
        (best_x0, {"prediction": "sample"}),
        (lambda x, t, condition: best_eps(x, t), {}),
        (lambda x, t, condition=None: (best_eps(x, t),), {}),
        (best_velocity, {"schedule": us.FlowSchedule(shift=3.0)}),
    ],
    ids=["eps", "v", "x0", "three arguments", "a tuple", "velocity, the default of a flow schedule"],
)
def test_a_function_inverts_like_the_closed_form(net, settings):
    """Reference: the analytic Gaussian model, float64."""
    model = us.Model.from_callable(net, shape=SHAPE, **{"schedule": SCHEDULE} | settings)
    exact = gaussian(model.schedule, [VARIANCE] * 16, shape=SHAPE)
    ours, theirs = (us.invert(m, pictures(3), steps=10, start=us.ForwardNoise(steps=1)).latent for m in (model, exact))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outputs", [3, 6])
def test_a_unet_of_diffusers_is_the_same_as_by_load(outputs):
    """Reference: `us.load` of a pipeline of the same network; with and without a learned variance."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 1}
    unet = UNet2DModel(
        sample_size=8, out_channels=outputs, block_out_channels=(8, 16), norm_num_groups=4, num_class_embeds=5, **blocks
    )
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    unet = unet.double()  # one is given its states channels last, which rounds otherwise
    loaded = us.load(DDPMPipeline(unet.eval(), scheduler))
    model = us.Model.from_callable(
        unet,
        schedule=schedule_of(scheduler.config),
        shape=(3, 8, 8),
        classes=5,
        steps_offset=1,
        clean="first",
    )
    noise = us.draw_noise(model, 2).double()
    ours, theirs = (us.sample(m, noise, steps=7, condition=[4, 1]).images for m in (model, loaded))
    torch.testing.assert_close(ours, theirs)
    assert (ours - us.sample(model, noise, steps=7, condition=[1, 4]).images).abs().max() > 1e-3


def test_a_module_keeps_its_precision_and_states_theirs():
    """Reference: bfloat16 itself, each output rounded to it once."""
    net = Affine().to(torch.bfloat16).train()
    model = us.Model.from_callable(net, schedule=SCHEDULE, shape=SHAPE)
    assert not net.training
    x, level = us.draw_noise(model, 2), model.grid(4)[2]
    eps = model.denoiser()(x, level)
    assert eps.dtype == torch.float32
    assert torch.equal(eps, net.mix(x.to(torch.bfloat16)).float())
    assert model.denoiser()(x.double(), level).dtype == torch.float64
    assert set(net.given) == {(torch.bfloat16, torch.int64)}
    net.double()  # a change of precision afterwards counts
    assert torch.equal(model.denoiser()(x, level), net.mix(x.double()).float())


def test_the_device_is_the_modules():
    meta = Affine().to("meta")
    assert us.Model.from_callable(meta, schedule=SCHEDULE, shape=SHAPE).device.type == "meta"
    assert us.Model.from_callable(best_eps, schedule=SCHEDULE, shape=SHAPE).device.type == "cpu"
    assert us.Model.from_callable(best_eps, schedule=SCHEDULE, shape=SHAPE, device="meta").device.type == "meta"


@pytest.mark.parametrize("classes", [("ant", "bee", "cow"), 3])
def test_classes_by_name_and_index_with_a_null(classes):
    """Reference: the analytic mixture by its own conditioner; the mixture itself is the null class, one past the last."""
    means = torch.randn((3, 16), generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 2
    whole = mixture(SCHEDULE, means, [0.02, 0.2, 0.5], shape=SHAPE)
    model = us.Model.from_callable(whole.network, schedule=SCHEDULE, shape=SHAPE, classes=classes, null=3)
    names = ["bee", "2"] if classes != 3 else ["1", 2]
    noise = us.draw_noise(model, 2, dtype=torch.float64)
    for guidance in (1.0, 3.0):
        ours = us.sample(model, noise, steps=5, condition=names, guidance=guidance).images
        assert torch.equal(ours, us.sample(whole, noise, steps=5, condition=[1, 2], guidance=guidance).images)
    assert torch.equal(us.sample(model, noise, steps=5).images, us.sample(whole, noise, steps=5).images)
    with pytest.raises(us.ArgumentError, match="class"):
        us.sample(model, noise, steps=5, condition="wasp" if classes != 3 else 3)


def test_a_conditioner_of_ones_own():
    """Words to vectors; a module is given them in its own dtype, and they are what null-text starts from."""

    class Worded(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift = nn.Linear(2, 1).to(torch.float64)

        def forward(self, x, t, words):
            return x + self.lift(words)[:, :, None, None]

    def lengths(conditions, device):
        return torch.tensor([[len(word or ""), 1.0] for word in conditions], device=device)

    net = Worded()
    model = us.Model.from_callable(net, schedule=SCHEDULE, shape=SHAPE, conditioner=lengths)
    x, level = us.draw_noise(model, 2), model.grid(4)[2]
    lifted = net.lift(torch.tensor([[3.0, 1.0], [0.0, 1.0]]).double())[:, :, None, None]
    torch.testing.assert_close(model.denoiser(["cat", None])(x, level), (x.double() + lifted).float())
    assert torch.equal(model.embed(["cat"]), torch.tensor([[3.0, 1.0]]))


def test_a_codec_and_a_grid_of_ones_own():
    """Also: images are as large as the codec says, and its latents are what is walked."""

    class Halving:
        scale = 2

        def encode(self, images):
            return images[..., ::2, ::2]

        def decode(self, latents):
            return latents.repeat_interleave(2, 2).repeat_interleave(2, 3)

    model = us.Model.from_callable(lambda x, t: 0 * x, schedule=SCHEDULE, shape=(3, 4, 6), codec=Halving(), spacing="trailing")
    assert model.image_size == (8, 12)
    assert model.grid(5)[5].t == 999
    flat = torch.full((2, 3, 8, 12), 0.5, dtype=torch.float64)
    back = us.reconstruct(model, flat, steps=5, start=us.FromImage())
    torch.testing.assert_close(back.images, flat)
    assert back.trajectory.latent.shape == (2, 3, 4, 6)


@pytest.mark.parametrize(
    ("net", "given"),
    [
        (lambda x, t: x[:, :, :2], r"\(2, 1, 2, 4\)"),
        (lambda x, t: x.repeat(1, 3, 1, 1), r"\(2, 3, 4, 4\)"),
        (lambda x, t: x[0], r"\(1, 4, 4\)"),
        (lambda x, t: None, "NoneType"),
        (lambda x, t: (), "tuple"),
        (lambda x, t: x.numpy(), "ndarray"),
    ],
)
def test_outputs_of_another_shape_are_refused_at_the_first_call(net, given):
    model = us.Model.from_callable(net, schedule=SCHEDULE, shape=SHAPE)
    says = rf"expected the network to return, for states of shape \(2, 1, 4, 4\), that shape.*given {given}"
    with pytest.raises(us.ArgumentError, match=says):
        us.sample(model, torch.zeros(2, *SHAPE), steps=3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schedule": DDIMScheduler()}, r"given DDIMScheduler; .*schedule_of\(scheduler\.config"),
        ({"shape": (3, 8)}, r"channels, height and width of a state, given shape \(3, 8\)"),
        ({"shape": (3, 0, 8)}, "channels, height and width of a state"),
        ({"prediction": "noise"}, "unknown prediction type 'noise'"),
        ({"null": 3}, "give classes, too"),
        ({"classes": 3, "null": 4}, "index of one of them or one more"),
        ({"classes": 0}, "expected classes"),
        ({"classes": 3, "conditioner": lambda conditions, device: None}, "given both"),
        ({"classes": 3}, r"can be called with \(x, t, condition\), given best_eps"),
        ({"net": lambda x: x}, r"can be called with \(x, t\), given <lambda>: wrap it"),
        ({"net": nn.Identity()}, r"can be called with \(x, t\), given Identity"),
        ({"net": lambda x, t, c, d: x}, r"can be called with \(x, t\)"),
    ],
)
def test_what_does_not_fit_together_is_refused(untyped, changes, says):
    settings = {"net": best_eps, "schedule": SCHEDULE, "shape": SHAPE, **changes}
    with pytest.raises(us.ArgumentError, match=says) as caught:
        us.Model.from_callable(settings.pop("net"), **settings)
    assert "\n" not in str(caught.value)
