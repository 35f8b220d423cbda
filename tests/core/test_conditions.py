"""What acts on the condition under guidance: another negative, embeddings in place of classes, and null-text optimisation."""

import math

import diffusers
import pytest
import torch

import unsample as us
from unsample.core.denoiser import NetworkDenoiser, PerLevel, cost_of
from unsample.methods.multistep import AdamsBashforth
from unsample.models.digest import digest_of
from unsample.runs.settings import SampleSettings
from unsample.uses.null_text import null_text

STEPS, TOP = 5, 3
"""Walks that fit embeddings end at level 3 of 5: beyond, an untrained network under guidance strays by a hundred pixels."""

ANIMALS = ["ant", "bee", "cow"]


@pytest.fixture(scope="module")
def pixels(tiny):
    """An untrained class-conditional model."""
    return us.load(str(tiny), device="cpu")


@pytest.fixture(scope="module")
def images():
    return torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def pivots(pixels, images):
    return inverted(pixels, images)


def inverted(pixels, images, **more):
    given = {"until": TOP, "start": us.FromImage(), "condition": ANIMALS, "keep": us.Keep("states")} | more
    return us.invert(pixels, images, steps=STEPS, **given)


def fitted(pixels, images, pivots, **more):
    given = {"condition": ANIMALS, "guidance": 3.0, "rate": 0.1, "tolerance": 0.0, "grid": pixels.grid(STEPS)} | more
    return null_text(pixels, images, pivots, **given)


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


def test_negatives_that_do_not_fit_are_refused(toy, pixels):
    from unsample.models.analytic import gaussian

    model = toy()
    noise = us.draw_noise(model, 3)
    with pytest.raises(us.ArgumentError, match="one per item"):
        us.sample(model, noise, condition=0, guidance=2.0, negative=[1, 2])
    with pytest.raises(us.ArgumentError, match="one embedding per item: 3 items, 2 at level 4"):
        us.sample(model, noise, condition=0, guidance=2.0, negative={4: torch.zeros(2, 8)})
    with pytest.raises(us.ArgumentError, match="outside this model's classes"):
        us.sample(model, noise, condition=0, guidance=2.0, negative=9)
    plain = gaussian(model.schedule, torch.ones(4), shape=(1, 2, 2))
    with pytest.raises(us.ArgumentError, match="takes no condition"):
        plain.denoiser(None, 1.0, [1])
    for without in (model, plain):
        with pytest.raises(us.ArgumentError, match="has no embedding"):
            without.embed([None])


def test_settings_know_the_negative_and_older_manifests_do_not(toy):
    model = toy()
    made = SampleSettings.of(model, label="0", guidance=2.0, negative="1")
    older = made.model_dump(exclude={"negative"})
    assert (made.negative, SampleSettings(**older).negative) == ("1", None)
    with pytest.raises(us.ArgumentError, match="outside this model's classes"):
        SampleSettings.of(model, label="0", guidance=2.0, negative="9")


def test_a_level_without_a_denoiser_of_its_own_asks_the_other():
    levels = [us.Level(i, i, 0.8, 0.6) for i in range(3)]
    per = PerLevel(us.Guided(lambda x, level: x, lambda x, level: 0 * x, 3.0), {1: lambda x, level: 2 * x})
    x = torch.ones(1, 2)
    assert [float(per(x, level)[0, 0]) for level in levels] == [3.0, 2.0, 3.0]
    assert cost_of(per) == 2


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


def test_the_digest_of_a_loaded_model_is_that_of_the_file(tiny):
    network = diffusers.UNet2DModel.from_pretrained(tiny, subfolder="unet")
    assert us.load(str(tiny), device="cpu").digest == digest_of(network)


def test_embeddings_of_unconditional_rows_by_level_change_nothing(pixels):
    noise = us.draw_noise(pixels, 3)
    rows = pixels.embed([None] * 3)
    plain = us.sample(pixels, noise, steps=STEPS, condition="bee", guidance=3.0)
    given = us.sample(pixels, noise, steps=STEPS, condition="bee", guidance=3.0, negative=dict.fromkeys((1, 2, 4), rows))
    assert torch.equal(given.images, plain.images)


@pytest.mark.parametrize("method", [us.DDIM(), AdamsBashforth()])
def test_fitted_embeddings_bring_guided_sampling_back_to_the_pivots(pixels, images, method):
    """The distance at each level, and that of the images, against guidance away from the plain unconditional embedding."""
    there = inverted(pixels, images, method=method)
    found = fitted(pixels, images, there)
    assert list(found.embeddings) == list(found.losses) == [3, 2, 1]
    still = fitted(pixels, images, there, iterations=0)
    assert all(torch.equal(rows, pixels.embed([None] * 3)) for rows in still.embeddings.values())
    for level in found.losses:
        assert bool((found.losses[level] < 0.6 * still.losses[level]).all()), level

    def missed(negative):
        guided = {"condition": ANIMALS, "guidance": 3.0, "negative": negative}
        sampled = us.sample(pixels, there.latent, steps=STEPS, index=TOP, **guided)
        return (sampled.images - images).square().flatten(1).mean(1)

    torch.testing.assert_close(missed(found.embeddings), found.losses[1], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(missed(None), still.losses[1], rtol=1e-4, atol=1e-8)


def test_fitting_equals_a_naive_loop_over_items(pixels, images, pivots):
    """Reference: one item at a time, Adam by torch, the guided DDIM move written out."""
    grid, found = pixels.grid(STEPS), fitted(pixels, images, pivots, iterations=3)
    for item, label in enumerate((0, 1, 2)):
        x, embedding = pivots.latent[item : item + 1], pixels.embed([None])
        for i, step in enumerate(grid.down(TOP)):
            t, c = torch.tensor([step.src.t]), torch.tensor([label])
            aim = pivots.states[step.dst.index][item : item + 1]
            embedding = embedding.detach().clone().requires_grad_()
            adam = torch.optim.Adam([embedding], lr=0.1 * (1 - i / (2 * TOP)))

            def move(embedding, x=x, t=t, c=c, step=step):
                u, e = pixels.network(x, t, embedding), pixels.network(x, t, c)
                eps = u + 3.0 * (e - u)
                clean = (x - step.src.sigma * eps) / step.src.alpha
                return step.dst.alpha * clean + step.dst.sigma * eps

            for _ in range(3):
                loss = torch.nn.functional.mse_loss(move(embedding), aim)
                if float(loss.detach()) < 1e-3 * i / TOP:
                    break
                (embedding.grad,) = torch.autograd.grad(loss, embedding)
                adam.step()
            with torch.no_grad():
                x = move(embedding)
            torch.testing.assert_close(found.embeddings[step.src.index][item], embedding[0].detach(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.losses[1][2], (x - images[2:]).square().mean(), rtol=1e-2, atol=1e-6)


def test_an_item_is_fitted_as_if_alone(pixels, images, pivots):
    """The tolerance lets items stop at different times."""
    more = {"tolerance": 0.2}
    together = fitted(pixels, images, pivots, **more)
    apart = fitted(pixels, images, pivots, batch_size=2, **more)
    for level, rows in together.embeddings.items():
        torch.testing.assert_close(apart.embeddings[level], rows, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(apart.losses[level], together.losses[level], rtol=1e-2, atol=1e-5)
    taken = []
    for i in range(3):
        alone = fitted(pixels, images[i : i + 1], pivots.take(torch.tensor([i])), **more, condition=ANIMALS[i])
        for level, rows in together.embeddings.items():
            torch.testing.assert_close(alone.embeddings[level][0], rows[i], rtol=1e-3, atol=1e-3)
        taken.append(alone.nfe)
    assert len(set(taken)) > 1
    assert together.nfe >= max(taken)


def test_evaluations_are_counted_and_parameters_and_graph_left_alone(pixels, images, pivots):
    asked = []

    def network(x, t, condition):
        asked.append(condition.is_floating_point())
        return pixels.network(x, t, condition)

    network.embed = pixels.network.embed
    model = us.Model(network, pixels.schedule, pixels.shape, conditioner=pixels.conditioner)
    moves = []
    found = fitted(model, images, pivots, iterations=4, on_step=lambda done, total: moves.append((done, total)))
    assert found.nfe == len(asked) == TOP * (1 + 4 + 1)
    assert sum(asked) == TOP * 5
    assert moves[-1] == (9, 9)
    close = fitted(model, images, pivots, iterations=4, tolerance=100.0)
    assert close.nfe == TOP * 2
    tensors = [*found.embeddings.values(), *found.losses.values()]
    assert not any(tensor.requires_grad or tensor.grad_fn for tensor in tensors)
    assert all(parameter.grad is None for parameter in pixels.network.unet.parameters())


def test_below_a_forward_start_only_the_image_is_aimed_at(pixels, images):
    start = us.ForwardNoise(steps=2)
    there = inverted(pixels, images, start=start, until=4)
    found = fitted(pixels, images, there)
    assert sorted(found.losses) == [1, 3, 4]
    assert torch.equal(found.embeddings[2], found.embeddings[3])
    assert not torch.equal(found.embeddings[1], found.embeddings[2])


def test_what_cannot_be_fitted_is_refused(pixels, images, pivots, toy):
    with pytest.raises(us.ArgumentError, match="keep=Keep"):
        fitted(pixels, images, us.Trajectory(pivots.latent, 0, TOP, TOP))
    with pytest.raises(us.ArgumentError, match="3 latents, 2 images"):
        fitted(pixels, images[:2], pivots)
    with pytest.raises(us.ArgumentError, match="needs a condition"):
        fitted(pixels, images, pivots, condition=None)
    with pytest.raises(us.ArgumentError, match="iterations must be at least 0"):
        fitted(pixels, images, pivots, iterations=-1)
    noise = us.draw_noise(toy(), 2)
    there = us.invert(toy(), noise / 4, steps=STEPS, condition=0, keep=us.Keep("states"))
    with pytest.raises(us.ArgumentError, match="has no embedding"):
        fitted(toy(), noise / 4, there, condition=0)
