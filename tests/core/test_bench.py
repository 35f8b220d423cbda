"""The bench without weights (paper.md): half of a Gaussian field smooth, half textured; every method is a gain per mode."""

import numpy as np
import pytest
import torch

import unsample as us
from unsample.models.analytic import bench_field

STEPS = 50
INVERSIONS = {  # name: (start, method, std plain, std textured, top-20 r plain, top-20 r textured, reconstruction), paper.md
    "shifted": (us.FromImage(), us.DDIM(), 0.355, 0.944, 0.901, 0.047, 0.018),
    "matched": (us.FromImage(), us.DDIM(eval_at="source"), 0.351, 0.862, 0.878, 0.056, 0.038),
    "forward 2": (us.ForwardNoise(steps=2), us.DDIM(), 0.798, 0.923, 0.090, 0.052, 0.093),
    "slip": (us.ForwardNoise(steps=2, at_next_level=True), us.DDIM(), 1.087, 0.977, 0.050, 0.037, 0.127),
}


@pytest.fixture(scope="module")
def bench():
    """The model, and the two halves as masks of the flat field."""
    model, plain = bench_field()
    return model, plain.flatten(), ~plain.flatten()


def covariance():
    """The field's covariance from its formula, pixel by pixel."""
    c = np.zeros((256, 256))
    for i in range(256):
        for j in range(256):
            (yi, xi), (yj, xj) = divmod(i, 16), divmod(j, 16)
            d2 = (yi - yj) ** 2 + (xi - xj) ** 2
            if xi < 8 and xj < 8:
                c[i, j] = 0.3 * np.exp(-d2 / 16 / 2) + 1e-5 * (i == j)
            elif xi >= 8 and xj >= 8:
                c[i, j] = 0.15 * np.exp(-d2 / 2) + 0.15 * (i == j)
    return c


def gains(variances):
    """Per mode: sampling, and each inversion's action on the image and on the start's noise; plain recursions of eq. 2."""
    alpha_bar = np.cumprod(1 - np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2)
    levels = np.concatenate([[1.0], alpha_bar[np.arange(STEPS) * (1000 // STEPS)]])
    a, s = np.sqrt(levels), np.sqrt(1 - levels)

    def move(src, dst, at):
        eps = s[at] / (a[at] ** 2 * variances + s[at] ** 2)
        return a[dst] / a[src] + (s[dst] - a[dst] / a[src] * s[src]) * eps

    def up(first, shift):  # at the clean level the network can only be given timestep 0, which is level 1
        return np.prod([move(i, i + 1, max(i + shift, 1)) for i in range(first, STEPS)], axis=0)

    down = np.prod([move(i, i - 1, i) for i in range(STEPS, 0, -1)], axis=0)
    return down, {
        "shifted": (up(0, 1), 0 * variances),
        "matched": (up(0, 0), 0 * variances),
        "forward 2": (a[2] * up(2, 1), s[2] * up(2, 1)),
        "slip": (a[3] * up(2, 1), s[3] * up(2, 1)),
    }


@pytest.mark.parametrize("name", INVERSIONS)
def test_library_walks_scale_every_mode_as_the_recursion_says(name, bench):
    """Reference: the recursion above in numpy; the library walks all 256 modes at once as images."""
    model, _, _ = bench
    network = model.network
    down, up = gains(network.variances.numpy())
    modes = network.basis.T.reshape(256, 1, 16, 16)
    start, method = INVERSIONS[name][:2]
    images = us.sample(model, modes, steps=STEPS).images
    torch.testing.assert_close(images, modes * torch.from_numpy(down)[:, None, None, None], rtol=0, atol=1e-10)
    latents = us.invert(model, modes, steps=STEPS, start=start, method=method, seed=7).latent
    noise = us.ItemNoise(7, range(256)).draw(modes.shape, dtype=torch.float64).flatten(1)
    noise = noise * (start.level(model.grid(STEPS)).index > 0)
    on_image, on_noise = (torch.from_numpy(g) for g in up[name])
    expected = modes.flatten(1) * on_image[:, None] + (noise @ network.basis * on_noise) @ network.basis.T
    torch.testing.assert_close(latents.flatten(1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", INVERSIONS)
def test_exact_statistics_of_the_latents_reproduce_the_table(name):
    """Reference: paper.md; the latents' covariance in closed form, so only the table's sampling error is left.

    A top-20 r that is all chance in the table (0.04 is its floor) is compared from above.
    """
    variances, basis = np.linalg.eigh(covariance())
    down, up = gains(np.maximum(variances, 0))
    on_image, on_noise = up[name]
    c = (basis * ((on_image * down) ** 2 + on_noise**2)) @ basis.T
    columns = np.arange(256) % 16
    plain, textured, r_plain, r_textured = INVERSIONS[name][2:6]
    for half, std, r in ((columns < 8, plain, r_plain), (columns >= 8, textured, r_textured)):
        block = c[np.ix_(half, half)]
        assert np.sqrt(np.diag(block).mean()) == pytest.approx(std, abs=0.005)
        scale = np.sqrt(np.diag(block))
        pairs = np.abs(block / np.outer(scale, scale))[np.triu_indices(128, 1)]
        top = np.sort(pairs)[-20:].mean()
        assert top < r
        if r > 0.2:
            assert top == pytest.approx(r, abs=0.01)


def top20(x):
    """Mean of the 20 largest absolute correlations between pixels."""
    x = (x - x.mean(0)) / x.std(0, unbiased=False)
    r = (x.T @ x / len(x)).abs()
    i = torch.triu_indices(len(r), len(r), 1)
    return float(r[i[0], i[1]].topk(20).values.mean())


def check_table(bench, count, dtype, tolerance, names):
    """Sample `count` images from noise, invert them in every way, and compare with the table."""
    model, left, right = bench
    noise = us.ItemNoise(0, [0]).draw((1, count, 1, 16, 16), dtype=dtype)[0]
    images = us.sample(model, noise, steps=STEPS).images
    floor = [top20(noise.flatten(1)[:, half]) for half in (left, right)]
    for name in names:
        start, method, plain, textured, r_plain, r_textured, back = INVERSIONS[name]
        latents = us.invert(model, images, steps=STEPS, start=start, method=method).latent
        flat = latents.flatten(1)
        stds = float(flat[:, left].std()), float(flat[:, right].std())
        assert stds == pytest.approx((plain, textured), abs=tolerance), name
        rs = top20(flat[:, left]), top20(flat[:, right])
        for r, known, lowest in zip(rs, (r_plain, r_textured), floor, strict=True):
            if count == 8192 or known > 0.2:
                assert r == pytest.approx(known, abs=tolerance), name
            else:
                assert 0.9 * lowest < r < lowest + known, name
        again = us.sample(model, latents[:512], steps=STEPS).images
        assert float((again - images[:512]).abs().mean()) == pytest.approx(back, abs=tolerance / 2), name


def test_bench_on_drawn_fields(bench):
    """Reference: paper.md, N = 8192; here 2048 fields, so that chance correlations are twice as large."""
    check_table(bench, 2048, torch.float32, 0.015, ["shifted", "forward 2"])


@pytest.mark.slow
def test_bench_in_full(bench):
    """Reference: paper.md, to its third digit but for the draw of the noise."""
    check_table(bench, 8192, torch.float64, 0.006, INVERSIONS)
