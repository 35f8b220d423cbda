import json
import math

import pytest
import torch

import unsample.diagnostics as diagnostics
from unsample.diagnostics import area_sums, diagnose, plain_mask, psnr, resize_mask, top_k_correlation, true_noise
from unsample.errors import ArgumentError

SMALL = ["mean", "excess kurtosis", "KL to N(0, 1)", "top-20 patch correlation"]


def photos(n=40, side=16):
    """Left half plain, right half textured."""
    images = torch.zeros(n, 3, side, side)
    images[..., side // 2 :] = (0.5 * true_noise((n, 3, side, side // 2), seed=9)).clamp(-1, 1)
    return images


@pytest.mark.parametrize(
    ("name", "note"),
    [("top-20 patch correlation", "needs at least 32 images, given 1"), ("KL per coordinate", "needs at least 2 images")],
)
def test_what_one_image_is_too_few_for_is_a_dash_with_its_reason(name, note):
    (line,) = [line for line in diagnose(true_noise((1, 3, 16, 16))).table().splitlines() if line.startswith(name)]
    assert line.removeprefix(name).split(maxsplit=3) == ["-", "-", "-", note]


def test_true_noise_lies_within_the_null():
    """Several seeds: all but a few of the rows, since each null interval holds 95 %."""
    rows = []
    for seed in range(4):
        found = diagnose(true_noise((40, 3, 16, 16), seed=100 + seed), images=photos(), seed=seed)
        rows += [row.is_noise for row in found.rows if row.null is not None]
    assert len(rows) == 4 * 11
    assert sum(rows) >= 0.85 * len(rows)


def test_too_little_noise_in_plain_areas_is_seen_there_and_only_there():
    images = photos()
    plain = plain_mask(images)[:, None]
    noise = true_noise((40, 3, 16, 16), seed=7)
    found = diagnose(torch.where(plain, 0.7 * noise, noise), images=images)
    assert found["std plain"].value == pytest.approx(0.7, abs=0.02)
    assert found["std other"].value == pytest.approx(1.0, abs=0.02)
    assert found["std plain"].is_noise is False
    assert found["std plain"].high < found["std plain"].null.low


def test_rows_are_the_functions_they_name():
    images, latent = photos(), true_noise((40, 3, 16, 16), seed=7) * 1.1 + 0.1
    again = images + 0.05 * true_noise(tuple(images.shape), seed=8)
    found = diagnose(latent, images=images, reconstruction=again)
    plain = plain_mask(images)
    assert found["lag-1 plain"].value == pytest.approx(area_sums(latent, plain).lag1)
    assert found["top-20 patch correlation"].value == pytest.approx(top_k_correlation(latent), abs=1e-6)
    assert found["plain fraction"].value == pytest.approx(float(plain.float().mean()))
    assert found["PSNR"].value == pytest.approx(float(psnr(images, again).mean()))
    assert found["MAE plain"].value == pytest.approx(area_sums((images - again).abs(), plain).mean)
    assert found["MAE"].null is None
    for row in found.rows:
        assert row.name == "KL per coordinate" or row.low <= row.value <= row.high, row


def test_shape_rows_are_the_functions_they_name():
    latent = true_noise((40, 3, 16, 16), seed=7).cumsum(-1) * 0.3
    found = diagnose(latent)
    assert found["KL per coordinate"].value == pytest.approx(float(diagnostics.kl_per_coordinate(latent).mean()))
    assert found["low-frequency power"].value == pytest.approx(diagnostics.low_frequency_power(latent).value)
    assert found["normality rejected"].value == pytest.approx(
        float((diagnostics.shapiro_wilk(latent).p < 0.05).double().mean())
    )
    assert all(found[name].is_noise is False for name in ("KL per coordinate", "low-frequency power"))


def test_given_the_noise_its_error_is_a_row():
    """Against independent noise, mean |a - b| is 2 / sqrt(pi) in closed form; a latent between both has half of it."""
    images, noise, other = photos(), true_noise((40, 3, 16, 16), seed=7), true_noise((40, 3, 16, 16), seed=8)
    found = diagnose((noise + other) / 2, images=images, noise=noise)
    assert found["error plain"].null.mean == pytest.approx(2 / math.sqrt(math.pi), abs=0.02)
    assert found["error plain"].value == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    assert found["error other"].is_noise is False
    angles = diagnostics.triangle(images, noise, (noise + other) / 2).at_latent
    assert found["angle at the latent"].value == pytest.approx(float(angles.mean()))
    assert found["angle at the latent"].is_noise is False
    with pytest.raises(ArgumentError, match="of one shape"):
        diagnose(noise, noise=noise[:, :2])


def test_without_images_there_are_no_areas():
    assert [row.name for row in diagnose(true_noise((8, 4, 8, 8))).rows][:3] == ["mean", "std", "lag-1"]


def test_few_images_are_noted():
    found = diagnose(true_noise((8, 3, 16, 16)))["top-20 patch correlation"]
    assert math.isnan(found.value)
    assert found.note == "needs at least 32 images, given 8"
    assert "needs windows" in diagnose(true_noise((40, 1, 2, 2)))["top-20 patch correlation"].note


def test_one_image_has_values_without_intervals():
    found = diagnose(true_noise((1, 3, 16, 16)), images=photos(1), reconstruction=photos(1))
    assert all(row.low is None for row in found.rows)
    assert found["PSNR"].value == math.inf


def test_latent_smaller_than_the_image():
    images, latent = photos(side=32), true_noise((40, 4, 4, 4))
    plain = resize_mask(plain_mask(images), (4, 4))
    assert diagnose(latent, images=images)["std plain"].value == pytest.approx(area_sums(latent, plain).std)


def test_a_latent_that_requires_grad_is_taken_and_left_alone():
    latent, images = true_noise((40, 3, 16, 16)).requires_grad_(), photos().requires_grad_()
    before = latent.detach().clone()
    found = diagnose(latent, images=images, reconstruction=images * 0.9)
    assert found["std plain"].value == diagnose(before, images=photos())["std plain"].value
    assert torch.equal(latent, before)


def test_no_plain_area_is_noted():
    images = true_noise((4, 3, 16, 16), seed=2).clamp(-1, 1)
    row = diagnose(true_noise((4, 3, 16, 16)), images=images)["std plain"]
    assert math.isnan(row.value)
    assert "no such pixels" in row.note


def test_table_and_dict():
    found = diagnose(true_noise((8, 3, 8, 8)), images=photos(8, 8), reconstruction=photos(8, 8))
    lines = found.table().splitlines()
    assert len(lines) == 1 + len(found.rows)
    assert lines[0].split() == ["diagnostic", "value", "95", "%", "interval", "true", "noise", "note"]
    assert len({line.find("[") for line in lines if line.startswith(("std", "lag-1"))}) == 1
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    by_name = {row["name"]: row for row in kept["rows"]}
    assert by_name["PSNR"]["value"] == "inf"
    assert by_name["SSIM"]["value"] is None
    assert by_name["std plain"]["null"]["mean"] == pytest.approx(1, abs=0.1)


@pytest.mark.usefixtures("untyped")
def test_refusals():
    latent = true_noise((4, 3, 16, 16))
    with pytest.raises(ArgumentError, match="pass images="):
        diagnose(latent, reconstruction=photos(4))
    with pytest.raises(ArgumentError, match="which it bounds"):
        diagnose(latent, images=photos(4), codec=photos(4))
    with pytest.raises(ArgumentError, match="one image per latent"):
        diagnose(latent, images=photos(3))
    with pytest.raises(ArgumentError, match="one shape"):
        diagnose(latent, images=photos(4), reconstruction=photos(4, 8))
    with pytest.raises(ArgumentError, match="diverged"):
        diagnose(latent * math.nan)
    with pytest.raises(ArgumentError, match="did you mean 'lag-1'"):
        diagnose(latent)["lag1"]


def test_every_public_name_has_an_example():
    things = [getattr(diagnostics, name) for name in diagnostics.__all__ if not name.isupper()]
    assert [thing.__name__ for thing in things if ">>>" not in thing.__doc__] == []
