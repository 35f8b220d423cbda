"""Judging models of every kind: the tiny pixel pipeline of random weights, and latent ones by v and by flow."""

import json
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, LDMPipeline, UNet2DModel
from PIL import Image

pytest.importorskip("pyarrow")

import evaluate
from data import Images

import unsample as us
from unsample.diagnostics import frechet, psnr
from unsample.models.classifier import load_classifier

LABELS = np.arange(24) % 3

SCHEDULERS = {
    "epsilon": DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
    "v_prediction": DDIMScheduler(prediction_type="v_prediction", clip_sample=False),
    "sample": DDIMScheduler(prediction_type="sample", clip_sample=False),
    "flow": FlowMatchEulerDiscreteScheduler(shift=1.0),
}


def latent_model(prediction):
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    vae = AutoencoderKL(block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4, scaling_factor=0.5, **kinds)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(sample_size=4, in_channels=4, out_channels=4, norm_num_groups=4, num_class_embeds=4, **blocks)
    return LDMPipeline(vae.eval(), unet.eval(), SCHEDULERS[prediction])


@pytest.fixture
def validation():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3, 8, 8)).astype(np.uint8)
    return Images(pixels, LABELS)


@pytest.fixture
def judge(tmp_path, validation, monkeypatch):
    """A function that runs the script on a model, with the images packed already."""
    monkeypatch.setattr(evaluate, "CLASSES", (0, 2))
    monkeypatch.setattr(evaluate, "STEPS", 3)
    monkeypatch.setattr(evaluate, "BATCH", 7)  # divides nothing
    (tmp_path / "out" / "cache").mkdir(parents=True)
    np.save(tmp_path / "out" / "cache" / "validation-8.npy", validation.pixels)
    np.save(tmp_path / "out" / "cache" / "validation-labels.npy", validation.labels)

    def run(directory):
        out = tmp_path / "out"
        given = f"evaluate {directory} --data {tmp_path} --out {out} --images 16 --samples 10 --trips 9 --rows 3 --device cpu"
        monkeypatch.setattr(sys, "argv", given.split())
        evaluate.main()
        return out, json.loads((out / "evaluation.json").read_text())

    return run


@pytest.mark.parametrize("prediction", SCHEDULERS)
def test_losses(prediction, validation):
    """Reference: the network asked directly, and its own target made of image and noise."""
    pipeline = latent_model(prediction)
    model = us.load(pipeline)
    images, labels = validation.take(np.arange(5))
    rows = {row["timestep"]: row for row in evaluate.held_out(model, images, labels.tolist())}
    states = model.codec.encode(images).detach()
    for t, level in evaluate.levels_of(model.schedule).items():
        noise = us.ItemNoise(0, range(5)).draw(states.shape, stream=f"held out {t}")
        noisy = level.alpha * states + level.sigma * noise
        targets = {
            "epsilon": noise,
            "v_prediction": level.alpha * noise - level.sigma * states,
            "sample": states,
            "flow": noise - states,
        }
        with torch.no_grad():
            guess = pipeline.unet(noisy, torch.tensor(level.t), class_labels=labels).sample
        expected = (guess - targets[prediction]).square().mean().item()
        assert rows[level.t]["own_true_class"] == pytest.approx(expected, rel=1e-3)
        x0 = (noisy - level.sigma * noise) / level.alpha
        torch.testing.assert_close(x0, states, rtol=0, atol=1e-3)
        itself = (noisy - noise).square().mean().item()
        assert rows[level.t]["predicting_x"] == pytest.approx(itself, rel=0.3, abs=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
def test_levels_have_the_noise_of_the_linear_table(prediction):
    """Reference: sigma/alpha of the linear table, to which the scaled one comes near up to its own noisiest timestep."""
    schedule = us.load(latent_model(prediction)).schedule
    linear = us.Schedule.from_betas(us.Schedule.linear_betas())
    found = evaluate.levels_of(schedule)
    assert tuple(found) == evaluate.LEVELS
    most, close = (float("inf"), 1e-9) if prediction == "flow" else (schedule.level(999).ratio, 0.1)
    assert most > linear.level(600).ratio
    for t, level in found.items():
        assert level.ratio == pytest.approx(min(linear.level(t).ratio, most), rel=close)
    assert {t: level.t for t, level in evaluate.levels_of(linear).items()} == {t: t for t in evaluate.LEVELS}


def test_what_it_writes_of_the_tiny_pipeline(tiny, judge, validation):
    """Reference: samples, features, distances and a round trip made here."""
    out, report = judge(tiny)
    model, classifier = us.load(str(tiny), device="cpu"), load_classifier(device="cpu")
    assert [row["timestep"] for row in report["levels"]] == list(evaluate.LEVELS)
    assert all(row["own_true_class"] == row["true_class"] for row in report["levels"])
    assert (report["images"], report["samples"]["images"], report["round_trip"]["images"]) == (16, 10, 9)

    chosen = np.linspace(0, 23, 10).astype(int)
    photographs, labels = validation.take(chosen)
    for row, guidance in zip(report["samples"]["rows"], (1.0, 2.5), strict=True):
        noise = us.draw_noise(model, 10)
        images = us.sample(model, noise, steps=3, condition=labels.tolist(), guidance=guidance).images.clamp(-1, 1)
        expected = frechet(classifier.features(images), classifier.features(photographs), features="x").value
        assert row["guidance"] == guidance
        assert row["frechet"] == pytest.approx(expected, rel=1e-3)
        assert "alignment" not in row, "its classes are not the classifier's"
    mean, low, high = report["samples"]["null"]
    assert low < mean < high

    chosen = np.linspace(0, 23, 9).astype(int)
    images, labels = validation.take(chosen)
    told = {"steps": 3, "condition": labels.tolist()}
    latent = us.invert(model, images, method=us.DDIM(), start=us.FromImage(), **told).latent
    back = us.sample(model, latent, **told).images.clamp(-1, 1)
    assert report["round_trip"]["psnr"][0] == pytest.approx(psnr(images, back).mean().item(), abs=0.01)

    card = (out / "card.md").read_text()
    assert f"| 0 | 0.01 | {report['levels'][0]['true_class']:.3g} ± " in card
    assert f"| samples, guidance 2.5 | {report['samples']['rows'][1]['frechet']:.3g} ± " in card
    assert "averaged down" not in card
    assert "mostly bias" in card
    assert "codec" not in card
    with Image.open(out / "samples.png") as sheet:
        assert sheet.height > 4 * 110, "four rows"


def test_a_latent_flow_model(tmp_path, judge, validation):
    """Reference: the codec alone, and images of the size of its own."""
    latent_model("flow").save_pretrained(tmp_path / "flow")
    (tmp_path / "flow" / "classes.json").write_text('{"names": ["ant", "bee", "cow"], "null": 3}')
    out, report = judge(tmp_path / "flow")
    assert report["prediction"] == "flow"
    model = us.load(str(tmp_path / "flow"), device="cpu")
    images = validation.take(np.linspace(0, 23, 9).astype(int))[0]
    alone = model.codec.decode(model.codec.encode(images)).detach().clamp(-1, 1)
    assert report["round_trip"]["psnr_of_codec"][0] == pytest.approx(psnr(images, alone).mean().item(), abs=0.01)
    assert report["round_trip"]["psnr_to_codec"][0] > 0
    classifier, photographs = load_classifier(device="cpu"), validation.take(np.linspace(0, 23, 10).astype(int))[0]
    rebuilt = model.codec.decode(model.codec.encode(photographs)).detach().clamp(-1, 1)
    expected = frechet(classifier.features(rebuilt), classifier.features(photographs), features="x").value
    assert report["samples"]["through_the_codec"]["frechet"] == pytest.approx(expected, rel=1e-3)
    card = (out / "card.md").read_text()
    assert "| the same photographs, through the codec | " in card
    row = report["levels"][3]
    numbers = [f"{row[key]:.3g}" for key in ("no_class", "own_true_class", "own_no_class", "predicting_x")]
    assert f" | {' | '.join(numbers)} |" in card
    assert "| time | sigma/alpha | eps, true class | eps, no class | flow, true class | flow, no class | x itself |" in card


def test_classes_that_the_classifier_knows_are_aligned(tmp_path, judge, monkeypatch):
    """Reference: chance; a network of random weights draws nothing in particular."""
    names = load_classifier(device="cpu").classes
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(sample_size=8, norm_num_groups=4, num_class_embeds=201, **blocks)
    unet.save_pretrained(tmp_path / "pixel" / "unet")
    SCHEDULERS["epsilon"].save_pretrained(tmp_path / "pixel" / "scheduler")
    (tmp_path / "pixel" / "classes.json").write_text(json.dumps({"names": names, "null": 200}))
    out, report = judge(tmp_path / "pixel")
    for found in (report["samples"]["alignment_of_photographs"], *(row["alignment"] for row in report["samples"]["rows"])):
        assert 0 <= found[1] <= found[0] <= found[2] < 0.3
    assert "| images | Frechet distance | alignment |" in (out / "card.md").read_text()
