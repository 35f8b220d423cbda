"""E19 on a network whose eps is its embedding, where every way back is a sum, and on a mixture; whose labels are used."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.core.rng import ItemNoise
from unsample.diagnostics import psnr
from unsample.pictures.read import Photo
from unsample.runs.directory import Run
from unsample.studies.experiments import Lab, Pictures, recipe, write
from unsample.studies.experiments.e19_guidance import Guidance
from unsample.studies.experiments.lab import labelled

W, STEPS = 3.0, 5


@pytest.fixture
def parquet(tmp_path):
    """A function that writes pictures of 8x8, plain in their upper half, and their labels if there are any."""

    def save(name, count, labels=None, first=0):
        rng, rows = np.random.default_rng(first), []
        for _ in range(count):
            buffer = io.BytesIO()
            pixels = rng.integers(100, 156, (8, 8, 3)).astype(np.uint8)
            pixels[:4] = 128
            Image.fromarray(pixels).save(buffer, format="PNG")
            rows.append({"bytes": buffer.getvalue()})
        columns = {"image": rows} | ({} if labels is None else {"label": labels})
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.fixture
def constant(tmp_path):
    """eps is 1 under any class and 0 under none; the embedding is eps itself."""
    model = us.Model(
        lambda x, t, condition: condition[:, :, None, None] + 0 * x,
        us.Schedule.from_betas(us.Schedule.linear_betas()),
        (3, 8, 8),
        conditioner=lambda conditions, device: torch.tensor([[float(c is not None)] for c in conditions]),
        name="constant",
        digest="constant",
    )
    return Lab(model, tmp_path / "cache", batch_size=2)


def test_every_way_back_of_a_constant_eps_is_a_sum(constant, parquet):
    """x / alpha moves by eps times the change of sigma / alpha, so that guidance adds (1 - w) sigma / alpha of the noisy end.

    What an unguided way misses is the noise of the forward start: S_1 (n - 1), where S is sigma / alpha and n the draw.
    """
    lab = replace(constant, data=(parquet("photos.parquet", 3, [0, 1, 0]),))
    found = Guidance(3, STEPS, W, (0.1,)).run(lab)
    photos, grid = lab.photographs(3), lab.model.grid(STEPS)
    noise = ItemNoise(0, [photo.id for photo in photos.photos]).draw((3, 3, 8, 8))
    ratio = [level.sigma / level.alpha for level in (grid[1], grid[STEPS])]
    missed = ratio[0] * (noise - 1)
    expected = {
        "no guidance": missed,
        "guidance 3": missed + (1 - W) * ratio[1],
        "guidance 3, the inversion too": ratio[0] * (noise - W),
        "guidance 3, away from the class itself (negative-prompt)": missed,
    }
    ways = found.metrics["ways"]
    for title, error in expected.items():
        values = psnr(photos.shown, (photos.pixels + error).clamp(-1, 1)).clamp(max=60)
        assert ways[title]["psnr"] == pytest.approx(values.tolist(), abs=0.01), title
    fitted = ways["guidance 3, null-text, rate 0.1"]
    assert min(fitted["psnr"]) > max(ways["guidance 3"]["psnr"])
    assert [way["nfe"]["down"] for way in ways.values()] == [STEPS, *[2 * STEPS] * 4]
    assert 2 * STEPS < fitted["nfe"]["fit"] <= 12 * STEPS
    assert "no null-text" not in found.setting


def test_claims_follow_from_the_ways(constant, parquet, tmp_path):
    lab = replace(constant, data=(parquet("photos.parquet", 4, [0] * 4),))
    found = Guidance(4, STEPS, W, (0.01, 0.1)).run(lab)
    ways = {title: np.array(way["psnr"]) for title, way in found.metrics["ways"].items()}
    none, guided, too, _, slow, fast = ways.values()
    spoils, mends, white, cancels, published, ours = found.claims
    assert spoils.holds is True
    assert f"{(guided - none).mean():+.2f} dB" in spoils.numbers
    assert mends.holds is bool((too - none).mean() > -1)
    assert white.holds is True  # a constant moves all values alike
    assert cancels.holds is True
    for claim, back in ((published, slow), (ours, fast)):
        assert f"{(back - guided).mean():+.2f} dB" in claim.numbers
        assert f"{100 * (back - guided).mean() / (none - guided).mean():.0f} %" in claim.numbers
    page = write(Run.open(tmp_path / "E19", "experiment", {}, []), recipe("E19"), "smoke", lab, found)
    assert page.read_text().count("<img") == 2


def test_without_labels_images_are_sampled_under_classes_and_without_embeddings_nothing_is_fitted(toy, tmp_path):
    """A mixture of three: guided sampling down by a loop with the formula of guidance."""
    lab = Lab(replace(toy(), digest="toy"), tmp_path / "cache", batch_size=4)
    found = Guidance(6, 4, 2.0, (0.1,)).run(lab)
    assert "no null-text" in found.setting
    assert "images sampled under classes" in found.setting
    pictures, labels = labelled(lab, 6, 4)
    assert labels == [0, 0, 1, 1, 2, 2]
    model, grid = lab.model, lab.model.grid(4)
    sampled = us.sample(model, pictures.noise, grid=grid, condition=labels).images
    torch.testing.assert_close(pictures.pixels.double(), sampled.double())
    ids = [photo.id for photo in pictures.photos]
    x = us.invert(model, pictures.pixels, start=us.ForwardNoise(steps=1), grid=grid, condition=labels, items=ids).latent
    towards, away = model.denoiser(labels), model.denoiser()
    for step in grid.down():
        eps = 2 * towards(x, step.src) - away(x, step.src)
        x = us.transfer(x, eps, step)
    values = psnr(pictures.shown, x.clamp(-1, 1).to(pictures.shown)).clamp(max=60)
    assert found.metrics["ways"]["guidance 2"]["psnr"] == pytest.approx(values.tolist(), abs=1e-3)


def test_labels_are_those_of_the_photographs_in_order(constant, parquet):
    places = (parquet("a.parquet", 2, [7, 3]), parquet("b.parquet", 3, [5, 1, 2], first=1))
    pictures, labels = labelled(replace(constant, data=places), 4, STEPS)
    assert labels == [7, 3, 5, 1]
    assert [photo.name for photo in pictures.photos] == ["a-00000", "a-00001", "b-00000", "b-00001"]


def test_data_without_labels_give_way_to_samples(toy, parquet, tmp_path):
    lab = Lab(replace(toy(), digest="toy"), tmp_path / "cache", data=(parquet("a.parquet", 2),))
    pictures, labels = labelled(lab, 3, 2)
    assert isinstance(pictures, Pictures)
    assert isinstance(pictures.photos[0], Photo)
    assert labels == [0, 1, 2]
    assert pictures.noise is not None


def test_what_has_no_classes_is_refused(constant, lab, toy, parquet, tmp_path):
    with pytest.raises(us.ArgumentError, match="takes no condition"):
        labelled(lab, 3, 2)
    with pytest.raises(us.ArgumentError, match="no list of classes"):
        labelled(constant, 3, 2)
    strange = Lab(replace(toy(), digest="toy"), tmp_path / "x", data=(parquet("a.parquet", 1, [9]),))
    with pytest.raises(us.ArgumentError, match="outside this model's classes"):
        labelled(strange, 1, 2)
