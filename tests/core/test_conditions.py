"""The condition under guidance: another negative, and embeddings in place of classes."""

import math

import pytest
import torch

import unsample as us
from unsample.core.denoiser import NetworkDenoiser, cost_of
from unsample.models.analytic import gaussian
from unsample.models.digest import digest_of

STEPS = 5


@pytest.fixture(scope="module")
def pixels(tiny):
    """An untrained class-conditional model."""
    return us.load(str(tiny), device="cpu")


def posterior_eps(model, means, variances, x, level, components):
    """Closed form of a mixture of the given components: sigma times the posterior mean of (x - alpha m) / variance."""
    flat = x.flatten(1)
    spread = [level.alpha**2 * variances[i] + level.sigma**2 for i in components]
    offsets = [flat - level.alpha * means[i] for i in components]
    pairs = list(zip(offsets, spread, strict=True))
    logits = torch.stack([-0.5 * o.square().sum(1) / v - 0.5 * flat.shape[1] * math.log(v) for o, v in pairs])
    shares = logits.softmax(0)
    return level.sigma * sum(s[:, None] * o / v for s, (o, v) in zip(shares, pairs, strict=True)).reshape(x.shape)


def test_guidance_away_from_another_class_is_its_formula_on_a_mixture(toy):
    """Reference: eps_n + w (eps_c - eps_n) with the closed form of each Gaussian and of the whole mixture."""
    model = toy()
    means, variances = model.network.means, model.network.variances.tolist()
    level, x = model.grid(10)[6], us.draw_noise(model, 3, dtype=torch.float64)

    def eps(*components):
        return posterior_eps(model, means, variances, x, level, components)

    away = model.denoiser([1, 1, 1], 3.0, [2, None, 0])
    expected = [n + 3 * (eps(1) - n) for n in (eps(2), eps(0, 1, 2), eps(0))]
    got = away(x, level)
    for i, one in enumerate(expected):
        torch.testing.assert_close(got[i], one[i], rtol=1e-9, atol=1e-9)
    assert cost_of(away) == 2
    without = model.denoiser(None, 2.0, [2, 2, 2])(x, level)
    torch.testing.assert_close(without, 2 * eps(0, 1, 2) - eps(2), rtol=1e-9, atol=1e-9)


def test_guidance_cancels_exactly_where_it_moves_away_from_the_condition_itself(toy, pixels):
    for model, dtype in ((toy(), torch.float64), (pixels, torch.float32)):
        noise = us.draw_noise(model, 3, dtype=dtype)
        plain = us.sample(model, noise, steps=STEPS, condition=[0, 1, 2])
        guided = us.sample(model, noise, steps=STEPS, condition=[0, 1, 2], guidance=7.5, negative=[0, 1, 2])
        assert torch.equal(guided.images, plain.images)
        assert (guided.nfe, plain.nfe) == (2 * STEPS, STEPS)
        null = us.sample(model, noise, steps=STEPS, condition=[0, 1, 2], guidance=7.5).images
        assert float((null - plain.images).abs().max()) > 1e-3


def test_one_negative_is_for_all_items_and_none_is_unconditional(toy):
    model = toy()
    noise = us.draw_noise(model, 3, dtype=torch.float64)

    def sampled(negative, **more):
        return us.sample(model, noise, steps=STEPS, condition=0, guidance=2.0, negative=negative, **more).images

    assert torch.equal(sampled(1), sampled([1, 1, 1]))
    assert torch.equal(sampled("1"), sampled(1))
    assert torch.equal(sampled(None), sampled([None, None, None]))
    assert float((sampled(1) - sampled(None)).abs().max()) > 1e-3
    torch.testing.assert_close(sampled([1, None, 2], batch_size=2), sampled([1, None, 2]), rtol=1e-9, atol=1e-9)


def test_negatives_that_do_not_fit_are_refused(toy):
    model = toy()
    noise = us.draw_noise(model, 3)
    with pytest.raises(us.ArgumentError, match="one per item"):
        us.sample(model, noise, condition=0, guidance=2.0, negative=[1, 2])
    with pytest.raises(us.ArgumentError, match="one embedding per item: 3 items, 2 at level 4"):
        us.sample(model, noise, condition=0, guidance=2.0, negative={4: torch.zeros(2, 8)})
    with pytest.raises(us.ArgumentError, match="outside this model's classes"):
        us.sample(model, noise, condition=0, guidance=2.0, negative=9)
    plain = gaussian(model.schedule, torch.ones(4), shape=(1, 2, 2))
    for without in (model, plain):
        with pytest.raises(us.ArgumentError, match="has no embedding"):
            without.embed([None])


def test_embeddings_and_labels_are_the_same_condition_bit_by_bit(pixels):
    """Reference: the rows of the network's own table."""
    unet, labels = pixels.network.unet, ["cow", None, 0, "cow"]
    embedding = pixels.embed(labels)
    assert torch.equal(embedding, unet.class_embedding.weight[[2, 3, 0, 2]])
    assert not embedding.requires_grad
    level, x = pixels.grid(STEPS)[3], us.draw_noise(pixels, 4)
    before, table = digest_of(unet), unet.class_embedding.weight
    with torch.no_grad():
        by_label = pixels.denoiser(labels)(x, level)
        by_embedding = NetworkDenoiser(pixels.network, pixels.prediction, embedding)(x, level)
    assert torch.equal(by_label, by_embedding)
    assert float((by_label - pixels.denoiser()(x, level)).abs().max()) > 1e-4
    assert unet.class_embedding.weight is table
    assert digest_of(unet) == before


def test_embeddings_of_unconditional_rows_by_level_change_nothing(pixels):
    noise = us.draw_noise(pixels, 3)
    rows = pixels.embed([None] * 3)
    plain = us.sample(pixels, noise, steps=STEPS, condition="bee", guidance=3.0)
    given = us.sample(pixels, noise, steps=STEPS, condition="bee", guidance=3.0, negative=dict.fromkeys((1, 2, 4), rows))
    assert torch.equal(given.images, plain.images)
