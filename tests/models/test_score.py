"""Score-based networks with exploding variance: reference, an Euler step in s with diffusers' own table, by hand."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

import unsample as us

from .agreement import STEPS, load


def score(sigma_max=50.0, **unet):
    torch.manual_seed(0)
    network = UNet2DModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "down_block_types": ("SkipDownBlock2D", "SkipDownBlock2D"),
            "up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D"),
            "time_embedding_type": "fourier",
            "center_input_sample": True,
            "norm_num_groups": 4,
            **unet,
        }
    ).eval()
    return ScoreSdeVePipeline(network, ScoreSdeVeScheduler(sigma_max=sigma_max, num_train_timesteps=200))


@torch.no_grad()
def by_hand(pipeline, x, steps):
    """The probability flow of eq. 13 of Song et al. 2021, dx = -s score ds, from one s of the table to the next."""
    table = pipeline.scheduler.discrete_sigmas
    levels = [0.0, *table[torch.linspace(0, len(table) - 1, steps).round().long()].tolist()]
    x = x * levels[-1]
    for s, lower in zip(levels[::-1], levels[-2::-1], strict=False):
        x = x - (lower - s) * s * pipeline.unet(x, torch.full((len(x),), s)).sample
    return x


@pytest.mark.parametrize("size", [None, (8, 16)])
def test_sample_is_the_probability_flow(tmp_path, size):
    pipeline = score()
    model = load(pipeline, tmp_path, size=size)
    noise = us.draw_noise(model, 2, seed=1)
    top = model.grid(STEPS)[STEPS]
    theirs = by_hand(pipeline, noise * top.alpha * (1 + top.ratio**2) ** 0.5, STEPS)
    ours = us.sample(model, noise * top.sigma, steps=STEPS).images
    torch.testing.assert_close(ours / 2 + 0.5, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_the_levels_are_those_of_the_scheduler(tmp_path):
    model, table = load(score(sigma_max=1348.0), tmp_path), score(sigma_max=1348.0).scheduler.discrete_sigmas
    ratios = torch.tensor([model.schedule.level(t).ratio for t in range(200)])
    torch.testing.assert_close(ratios, table, rtol=1e-4, atol=0)


def test_a_network_told_timesteps_is_refused(tmp_path):
    with pytest.raises(us.ModelError, match="expected a network that takes the noise itself"):
        load(score(time_embedding_type="positional"), tmp_path)


def test_a_scheduler_that_has_no_sigmas_of_its_own_is_refused():
    """EulerDiscreteScheduler has the names, and None under them."""
    pipeline = score()
    pipeline.scheduler = EulerDiscreteScheduler()
    with pytest.raises(us.ModelError, match=r"expected a ScoreSdeVeScheduler with .*, given EulerDiscreteScheduler"):
        us.load(pipeline)
