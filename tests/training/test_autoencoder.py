"""The autoencoder's recipe at toy size, and the packing of its latents: 16x16 images of coloured discs to 4x4 latents."""

import dataclasses
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pyarrow")

import autoencoder as module
import encode
from autoencoder import Recipe, Trainer, perceptual_distance, train
from conftest import ROOT, assert_same_run, final_state
from data import Images, Latents
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel
from losses import read_log

import unsample as us
from unsample.models.classifier import load_classifier

CPU = torch.device("cpu")


def discs(count, seed):
    """A disc of any colour anywhere on any colour, uint8 (count, 3, 16, 16)."""
    rng, grid = np.random.default_rng(seed), np.arange(16)
    places = rng.uniform(4, 12, (2, count, 1, 1))
    inside = (grid[:, None] - places[0]) ** 2 + (grid - places[1]) ** 2 < 16
    colours = rng.integers(0, 256, (2, count, 3, 1, 1))
    return np.where(inside[:, None], *colours).astype(np.uint8)


@pytest.fixture
def run(folder_of):
    """A function that makes a folder for a run, with the images packed already."""
    return lambda name: folder_of(name, train=discs(48, 0), validation=discs(24, 1))


@pytest.fixture
def unjudged(monkeypatch):
    """Training without evaluation and pictures, which take most of the time."""
    monkeypatch.setattr(module, "evaluate", lambda *_: {})
    monkeypatch.setattr(module, "plot", lambda *_: None)


@pytest.fixture
def recipe():
    toy = {"batch": 8, "steps": 8, "warmup": 2, "cooldown": 3, "report_every": 2, "evaluate_every": 4, "learning_rate": 3e-3}
    toy |= {"checkpoint_every": 3, "held_out": 8, "measured": 40, "ema": 0.9, "crop": 16, "perceptual": 0.1}
    recipe = Recipe.load(ROOT / "training" / "recipes" / "tiny-imagenet-64-autoencoder.toml", **toy)
    model = {**recipe.model, "sample_size": 16, "block_out_channels": [8, 8, 16], "norm_num_groups": 4, "latent_channels": 4}
    return dataclasses.replace(recipe, model=model)


def test_perceptual_distance():
    """Reference: the features of one image at a time, by a hook, and the definition pixel by pixel."""
    judge = load_classifier(device="cpu").network
    a, b = (torch.from_numpy(discs(2, seed)).float() / 127.5 - 1 for seed in (0, 1))

    def depths(image):
        kept = []
        handles = [block.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0][0])) for block in judge.blocks]
        handles.append(judge.blocks[-1].register_forward_hook(lambda _, inputs, output: kept.append(output[0])))
        judge(image[None])
        for handle in handles:
            handle.remove()
        return kept

    for i, found in enumerate(perceptual_distance(judge, a, b)):
        means = []
        for left, right in zip(depths(a[i]), depths(b[i]), strict=True):
            pixels = zip(left.flatten(1).T, right.flatten(1).T, strict=True)
            means.append(np.mean([float((x / x.norm() - y / y.norm()).square().sum()) for x, y in pixels]))
        assert found.item() == pytest.approx(np.mean(means), rel=1e-4)
    assert len(means) == 5
    assert float(perceptual_distance(judge, a, a).abs().max()) == 0


def test_the_loss_is_that_of_latent_diffusion(recipe):
    """Reference: its sums over an image, with noise by the same generator, divided by the image's number of values."""
    recipe = dataclasses.replace(recipe, bf16=False, perceptual=0.25, kl=10.0)
    trainer = Trainer(recipe, CPU)
    images = torch.from_numpy(discs(4, 0)).float() / 127.5 - 1
    with torch.no_grad():
        posterior = trainer.model.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
        rebuilt = trainer.model.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).sum((1, 2, 3))
        seen = perceptual_distance(trainer.judge, rebuilt, images)
        sums = (rebuilt - images).abs().sum((1, 2, 3)) + 0.25 * 768 * seen + 10 * kl
    assert trainer.step(images).item() == pytest.approx((sums / 768).mean().item(), rel=1e-5)
    assert float(10 * kl.mean()) > 0.01 * float(sums.mean()), "a divergence that matters"


def test_an_interrupted_run_ends_like_an_uninterrupted_one(recipe, run, unjudged, monkeypatch, stop_after):
    whole, parts = run("whole"), run("parts")
    assert train(recipe, whole, whole, device="cpu")
    assert final_state(whole)[0] == 8
    stop_after(Trainer, 4)
    assert not train(dataclasses.replace(recipe, steps=30), parts, parts, device="cpu")
    assert final_state(parts)[0] == 4
    stop_after(Trainer, None)
    assert train(recipe, parts, parts, device="cpu")
    assert_same_run(whole, parts)
    model = "model/diffusion_pytorch_model.safetensors"
    assert (whole / model).read_bytes() == (parts / model).read_bytes()
    monkeypatch.setattr(Trainer, "step", None)
    assert train(recipe, whole, whole, device="cpu"), "a complete run only writes its results again"


def test_a_run_learns_and_leaves_an_autoencoder(recipe, run):
    """Reference: the averaged weights; the file holds them in half precision, but for the two 1x1 convolutions."""
    out = run("out")
    assert train(dataclasses.replace(recipe, steps=80, evaluate_every=40, learning_rate=1e-2), out, out, device="cpu")
    rows = read_log(out / "loss.csv")
    assert np.mean([row["loss"] for row in rows[-5:]]) < 0.8 * rows[0]["loss"]
    assert [row["step"] for row in rows if row["held_out"] is not None] == [40, 80]

    vae = AutoencoderKL.from_pretrained(out / "model", torch_dtype=torch.float32).eval()
    _, tensors = final_state(out)
    average = {name: tensors[f"average {name}"] for name, _ in vae.named_parameters()}
    for name, weight in vae.named_parameters():
        if "quant_conv" not in name:
            assert torch.equal(weight, average[name].half().float()), name
    packed = Images.open(out, out / "cache", "train", 16)
    images = packed.take(np.linspace(0, 47, 40).astype(int))[0]
    with torch.no_grad():
        found = vae.encode(images).latent_dist.mean
    assert vae.config.scaling_factor == 1
    assert found.mean((0, 2, 3)).tolist() == pytest.approx([0] * 4, abs=0.01)
    assert found.std((0, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.01)
    before = AutoencoderKL.from_config(vae.config).eval()
    before.load_state_dict(average)
    with torch.no_grad():
        means = before.encode(images).latent_dist.mean

    report = json.loads((out / "evaluation.json").read_text())
    assert report["images"] == 24
    assert report["latents"]["means"] == pytest.approx(means.mean((0, 2, 3)).tolist(), abs=1e-3)
    validation = Images.open(out, out / "cache", "validation", 16).take(np.arange(24))[0]
    with torch.no_grad():
        rebuilt = vae(validation).sample.clamp(-1, 1)
    errors = (rebuilt - validation).square().mean((1, 2, 3))
    assert report["psnr"][0] == pytest.approx((10 * torch.log10(4 / errors)).mean().item(), abs=0.02)
    assert report["psnr"][1] < report["psnr"][0] < report["psnr"][2]
    assert 0 < report["ssim"][0] < 1
    for picture in ("reconstructions.png", "loss.png"):
        with Image.open(out / picture) as sheet:
            assert sheet.width > 100


def test_a_run_that_ends_in_time_cools_down(recipe):
    """Of 3 minutes at a step a second, 3/8 cool down: 67 steps."""
    trainer = Trainer(recipe, CPU, minutes=3)
    for second in range(1, 400):
        if trainer.is_complete:
            break
        trainer.done = second
        trainer.note_time(second)
    assert trainer.done == pytest.approx(180, abs=1)
    assert trainer.recipe.cooldown == pytest.approx(67, abs=1)
    assert trainer.recipe.rate(trainer.done - 1) < 0.02 * recipe.learning_rate


def test_latents(recipe, run, unjudged, monkeypatch):
    """Reference: the codec of the model that the saved directory is part of, as `unsample.load` reads it."""
    out = run("out")
    train(dataclasses.replace(recipe, steps=2), out, out, device="cpu")
    (out / "classes.json").write_text("{}")
    (out / "packed").mkdir()
    shutil.copytree(out / "cache", out / "packed" / "cache")
    monkeypatch.setattr(sys, "argv", f"encode {out / 'model'} --data {out} --out {out / 'packed'} --mirrors".split())
    monkeypatch.setattr(encode, "BATCH", 20)  # the last batch is shorter
    encode.main()
    assert not list((out / "packed").glob("*partial*"))
    assert (out / "packed" / "classes.json").is_file()

    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",), "block_out_channels": (8,)}
    unet = UNet2DModel(sample_size=4, in_channels=4, out_channels=4, norm_num_groups=4, num_class_embeds=4, **blocks)
    LDMPipeline(AutoencoderKL.from_pretrained(out / "model"), unet, DDIMScheduler()).save_pretrained(out / "pipeline")
    model = us.load(str(out / "pipeline"), device="cpu")
    assert (model.shape, model.image_size) == ((4, 4, 4), (16, 16))
    for split, count in (("train", 48), ("validation", 24)):
        latents = np.load(out / "packed" / f"{split}-latents.npy")
        labels = np.load(out / "packed" / f"{split}-labels.npy")
        assert (latents.dtype, latents.shape) == (np.float16, (count, 2, 4, 4, 4))
        assert labels.tolist() == [i % 3 for i in range(count)]
        images = Images.open(out, out / "cache", split, 16).take(np.arange(count))[0]
        for which, pictures in enumerate((images, images.flip(-1))):
            expected = model.codec.encode(pictures).detach()
            torch.testing.assert_close(torch.from_numpy(latents[:, which]).float(), expected, rtol=1e-3, atol=1e-3)
    assert latents.std() == pytest.approx(1, abs=0.3)
    exact = latents.astype(np.float32)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--bf16"])
    encode.main()
    close = np.load(out / "packed" / "validation-latents.npy").astype(np.float32)
    assert 0 < np.abs(close - exact).std() / exact.std() < 0.02
    assert module.digest_of(model.codec.vae) == json.loads((out / "packed" / "latents.json").read_text())["autoencoder"]


def test_squares_of_the_images_are_trained_on(recipe, monkeypatch):
    """Each step sees the squares at one place; which one depends on the step alone."""
    trainers = [Trainer(dataclasses.replace(recipe, crop=8), torch.device("cpu")) for _ in range(2)]
    images, seen = torch.rand(4, 3, 16, 16) * 2 - 1, []
    for trainer in trainers:
        encode, places = trainer.model.encode, []

        def look(squares, encode=encode, places=places):
            assert squares.shape == (4, 3, 8, 8)
            same = [(y, x) for y in range(9) for x in range(9) if torch.equal(images[..., y : y + 8, x : x + 8], squares)]
            places.extend(same)
            return encode(squares)

        monkeypatch.setattr(trainer.model, "encode", look)
        for _ in range(6):
            trainer.step(images)
        seen.append(places)
    assert len(seen[0]) == 6
    assert len(set(seen[0])) > 3
    assert seen[0] == seen[1]


def test_latents_without_mirrors(tmp_path):
    values = np.random.default_rng(0).standard_normal((10, 1, 4, 2, 2)).astype(np.float16)
    np.save(tmp_path / "train-latents.npy", values)
    np.save(tmp_path / "train-labels.npy", np.arange(10))
    index = np.array([3, 4])
    found, labels = Latents.open(tmp_path, "train").take(index, np.array([True, False]))
    assert torch.equal(found, torch.from_numpy(values[index, 0]).float())
    assert labels.tolist() == [3, 4]


def test_standardised_latents_are_of_the_same_images(recipe):
    """Reference: the network before, whose posterior is moved and scaled by hand."""
    torch.manual_seed(0)
    network = AutoencoderKL(**recipe.model).eval()
    images, means, deviations = torch.rand(3, 3, 16, 16) * 2 - 1, torch.randn(4), torch.rand(4) + 0.5
    with torch.no_grad():
        before, rebuilt = network.encode(images).latent_dist, network(images).sample
        module.standardise(network, means, deviations)
        after = network.encode(images).latent_dist
        torch.testing.assert_close(network(images).sample, rebuilt)
    shift, scale = means[:, None, None], deviations[:, None, None]
    torch.testing.assert_close(after.mean, (before.mean - shift) / scale)
    torch.testing.assert_close(after.std, before.std / scale)
