"""Null-text optimisation: embeddings by level with which guided sampling retraces an inversion."""

import pytest
import torch

import unsample as us
from unsample.methods.multistep import AdamsBashforth
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
    with pytest.raises(us.ArgumentError, match="iterations as a whole number of at least 0"):
        fitted(pixels, images, pivots, iterations=-1)
    noise = us.draw_noise(toy(), 2)
    there = us.invert(toy(), noise / 4, steps=STEPS, condition=0, keep=us.Keep("states"))
    with pytest.raises(us.ArgumentError, match="has no embedding"):
        fitted(toy(), noise / 4, there, condition=0)
