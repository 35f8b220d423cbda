import pytest
import torch

from unsample.diagnostics import excess_variance, local_correlation, true_noise
from unsample.errors import ArgumentError


def naive_local(x, window):
    b, _, h, w = x.shape
    reach, out = window // 2, torch.zeros(b, h, w)
    for n in range(b):
        for y in range(h):
            for u in range(w):
                rows = range(max(0, y - reach), min(h, y + reach + 1))
                columns = range(max(0, u - reach), min(w, u + reach + 1))
                products = [x[n, :, i, j] * x[n, :, i + 1, j] for i in rows for j in columns if i + 1 in rows]
                products += [x[n, :, i, j] * x[n, :, i, j + 1] for i in rows for j in columns if j + 1 in columns]
                out[n, y, u] = torch.stack(products).mean()
    return out


@pytest.mark.parametrize(("shape", "window"), [((1, 2, 6, 7), 5), ((2, 1, 4, 3), 3), ((1, 1, 1, 6), 5)])
def test_local_correlation_against_a_loop(shape, window):
    x = true_noise(shape)
    assert torch.allclose(local_correlation(x, window), naive_local(x, window), atol=1e-5)


def test_excess_variance_against_a_loop():
    x = true_noise((1, 3, 6, 7))
    found = excess_variance(x, 3)
    for i in range(6):
        for j in range(7):
            inside = x[0, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2]
            assert found[0, i, j] == pytest.approx(float(inside.square().mean()) - 1, abs=1e-5)


def test_both_are_zero_on_true_noise_edges_included():
    x = true_noise((512, 3, 12, 12))
    for found in (local_correlation(x), excess_variance(x)):
        assert found.mean(0).abs().max() < 0.05  # 9 to 75 values each, 512 images


@pytest.mark.usefixtures("untyped")
def test_refusals():
    x = true_noise((1, 1, 8, 8))
    for call in (lambda: local_correlation(x, 4), lambda: local_correlation(x, 1), lambda: excess_variance(x, 2)):
        with pytest.raises(ArgumentError, match="odd"):
            call()
    with pytest.raises(ArgumentError, match="neighbour"):
        local_correlation(x[..., :1, :1])
