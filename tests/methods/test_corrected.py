"""Samplers made to follow a path: exact reconstructions, and latents that do not know of it."""

import pytest
import torch

import unsample as us
from unsample.methods.corrected import Direct, ExactAndGaussian
from unsample.methods.multistep import AdamsBashforth
from unsample.methods.registry import METHODS
from unsample.methods.reversible import BDIA, EDICT

STEPS = 12
WAYS = [
    Direct(),
    Direct(AdamsBashforth()),
    ExactAndGaussian(),
    ExactAndGaussian(us.LookAhead()),
    ExactAndGaussian(keep_eps=True),
    ExactAndGaussian(BDIA()),
    ExactAndGaussian(EDICT()),
]


@pytest.fixture(scope="module")
def model(toy):
    return toy()


@pytest.fixture(scope="module")
def images():
    return torch.randn((5, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-1, 1)


def there_and_back(model, images, method, start, **more):
    there = us.invert(model, images, steps=STEPS, method=method, start=start)
    return there, us.sample(model, there.latent, steps=STEPS, method=method.sampler, stored=there.stored, **more)


@pytest.mark.parametrize("start", [us.FromImage(), us.ForwardNoise(steps=1), us.ForwardNoise(steps=4)], ids=str)
@pytest.mark.parametrize("method", WAYS, ids=str)
def test_the_image_comes_back_and_the_latent_is_that_of_the_inversion(model, images, method, start):
    """Reference: the image to 1e-9, the latent of the method inside bit by bit."""
    there, back = there_and_back(model, images, method, start)
    torch.testing.assert_close(back.images, images, rtol=0, atol=1e-9)
    assert torch.equal(there.latent, us.invert(model, images, steps=STEPS, method=method.method, start=start).latent)
    without = us.sample(model, there.latent, steps=STEPS, method=us.DDIM()).images
    assert (without - images).abs().max() > 1e-4  # there was something to correct


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].family in ("corrected", "stochastic")])
def test_in_single_precision_to_rounding_error(model, images, name):
    single = images.float()
    _, back = there_and_back(model, single, METHODS[name](), us.ForwardNoise(steps=2))
    torch.testing.assert_close(back.images, single, rtol=0, atol=1e-6)


def test_what_is_stored_and_what_it_costs(model, images):
    """`Direct` stores a map for each state of the path but its end; `ExactAndGaussian` one, or with its eps N - k + 1."""
    k, bits = 3, 64 * 16
    stored = {}
    for method in (Direct(), ExactAndGaussian(), ExactAndGaussian(keep_eps=True)):
        there, back = there_and_back(model, images, method, us.ForwardNoise(steps=k))
        stored[str(method)] = (there.stored.bits // bits, there.nfe, back.nfe)
    up, down = STEPS - k, STEPS
    assert list(stored.values()) == [(up + 1, up + down, down), (1, up + down, down), (up + 1, up + k, k)]


def test_corrections_edit_under_another_condition(model, images):
    """The same condition returns the image; another one does not, and is not the plain sample of it either."""
    there = us.invert(model, images, steps=STEPS, method=Direct(), start=us.ForwardNoise(steps=1), condition=0)
    same, other = (
        us.sample(model, there.latent, steps=STEPS, condition=label, stored=there.stored).images for label in (0, 1)
    )
    torch.testing.assert_close(same, images, rtol=0, atol=1e-9)
    plain = us.sample(model, there.latent, steps=STEPS, condition=1).images
    assert (other - images).abs().max() > 1e-3
    assert (other - plain).abs().max() > 1e-3


def test_what_cannot_be_recorded_is_refused(model, images):
    with pytest.raises(us.ArgumentError, match="leave out until"):
        us.invert(model, images, steps=STEPS, method=Direct(), until=5)
    with pytest.raises(us.ArgumentError, match="own memory"):
        ExactAndGaussian(BDIA(), keep_eps=True)


def test_eps_of_items_with_different_starts_cannot_be_kept_together():
    from unsample.core.stored import Stored

    one, other = (Stored(eps={level: torch.zeros(1, 2)}) for level in (1, 2))
    with pytest.raises(us.ArgumentError, match="different starts"):
        Stored.cat([one, other])
