import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from unsample.diagnostics import mae, mse, psnr, ssim, true_noise
from unsample.errors import ArgumentError


@pytest.fixture
def pair():
    images = (true_noise((4, 3, 16, 16)) * 0.4).clamp(-1, 1)
    return images, (images + 0.1 * true_noise((4, 3, 16, 16), draw=1)).clamp(-1, 1)


def test_psnr_against_torchmetrics(pair):
    expected = peak_signal_noise_ratio(*pair, data_range=2.0, dim=(1, 2, 3), reduction="none")
    assert psnr(*pair).tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_ssim_against_torchmetrics_on_unit_range_images(pair):
    """Others report SSIM of pictures in [0, 1], where it is not what it is on [-1, 1] with range 2."""
    unit = [(x.double() + 1) / 2 for x in pair]
    expected = structural_similarity_index_measure(*unit, data_range=1.0, reduction="none")
    shifted = structural_similarity_index_measure(*pair, data_range=2.0, reduction="none")
    assert ssim(*pair).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    assert (shifted - expected).abs().min() > 0.05


def test_errors_against_torch(pair):
    a, b = pair
    assert mae(a, b).tolist() == pytest.approx((a - b).abs().flatten(1).mean(1).tolist())
    assert mse(a, b).tolist() == pytest.approx((a - b).square().flatten(1).mean(1).tolist())


def test_identical_images(pair):
    a, _ = pair
    assert psnr(a, a).tolist() == [math.inf] * 4
    assert mae(a, a).tolist() == [0.0] * 4
    assert ssim(a, a).tolist() == pytest.approx([1.0] * 4)


def test_masked_error_against_a_loop(pair):
    a, b = pair
    mask = true_noise((4, 16, 16), draw=2) > 0
    mask[3] = False
    expected = [float((a[i] - b[i]).abs()[:, mask[i]].mean()) for i in range(3)]
    found = mae(a, b, mask).tolist()
    assert found[:3] == pytest.approx(expected)
    assert math.isnan(found[3])


def test_the_order_of_the_batch_does_not_matter(pair):
    a, b = pair
    assert torch.equal(psnr(a.flip(0), b.flip(0)).flip(0), psnr(a, b))


@pytest.mark.usefixtures("untyped")
def test_refusals(pair):
    a, b = pair
    with pytest.raises(ArgumentError, match="one shape"):
        psnr(a, b[:2])
    with pytest.raises(ArgumentError, match="rescale"):
        mae(a * 255, b)
    with pytest.raises(ArgumentError, match="11 pixels"):
        ssim(a[..., :10, :10], b[..., :10, :10])
    with pytest.raises(ArgumentError, match="finite"):
        mse(a, b * math.nan)


def test_ssim_hands_on_few_images_at_once_and_gives_the_same(monkeypatch):
    """Reference: all at once. Each value costs torchmetrics hundreds of bytes."""
    import torchmetrics.functional.image as metrics

    a, b = (true_noise((200, 3, 32, 32), draw=draw).clamp(-1, 1) for draw in (1, 2))
    given, index = [], metrics.structural_similarity_index_measure

    def counted(first, *more, **options):
        given.append(first.numel())
        return index(first, *more, **options)

    monkeypatch.setattr(metrics, "structural_similarity_index_measure", counted)
    found = ssim(a, b)
    assert max(given) <= 2**18
    assert sum(given) == a.numel()
    assert torch.equal(found.float(), index((b + 1) / 2, (a + 1) / 2, data_range=1.0, reduction="none"))
