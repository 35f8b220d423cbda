"""The classifier's recipe at toy size: two small blocks, three classes of coloured 8x8 noise."""

import dataclasses
import json

import numpy as np
import pytest
import torch

pytest.importorskip("pyarrow")

import classifier as module
from classifier import Recipe, Trainer, augment, judge, train
from conftest import ROOT, assert_same_run, final_state
from data import Images
from losses import read_log

from unsample.models.classifier import load_classifier


def coloured(count, seed):
    """Noise on the colour of its class."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 3
    levels = 80 + 60 * np.eye(3)[labels][:, :, None, None] + rng.normal(0, 40, (count, 3, 8, 8))
    return levels.clip(0, 255).astype(np.uint8)


@pytest.fixture
def run(folder_of):
    """A function that makes a folder for a run, with the images packed already."""
    return lambda name: folder_of(name, train=coloured(40, 0), validation=coloured(30, 1))


@pytest.fixture
def recipe():
    toy = {"size": 8, "batch": 8, "steps": 12, "warmup": 2, "cooldown": 4, "shift": 2}
    toy |= {"report_every": 2, "evaluate_every": 6, "checkpoint_every": 5, "learning_rate": 0.05}
    model = {"widths": [8, 8, 16], "strides": [1, 1, 2], "classes": 3}
    return dataclasses.replace(
        Recipe.load(ROOT / "training" / "recipes" / "tiny-imagenet-32-classifier.toml"), model=model, **toy
    )


def test_augment_shifts_and_mirrors_the_border(recipe):
    """Reference: numpy's reflection padding, then the one window that fits."""
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    moved, shift = augment(images, recipe, 3), recipe.shift
    windows = set()
    for image, result in zip(images.numpy(), moved.numpy(), strict=True):
        padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)), mode="reflect")
        places = [(r, c) for r in range(2 * shift + 1) for c in range(2 * shift + 1)]
        found = [(r, c) for r, c in places if np.array_equal(padded[:, r : r + 8, c : c + 8], result)]
        assert len(found) == 1
        windows.update(found)
    assert len(windows) > 1
    assert torch.equal(augment(images, recipe, 3), moved)
    assert not torch.equal(augment(images, recipe, 4), moved)


def test_rate(recipe):
    recipe = dataclasses.replace(recipe, steps=100, warmup=10, cooldown=20, learning_rate=1.0)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[10:81] == [1.0] * 71
    assert rates[80:] == pytest.approx([0.05 * n for n in range(20, 0, -1)])


def test_judge():
    """Reference: the definitions, one image at a time."""
    logits = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = np.arange(20) % 7

    class Recited(torch.nn.Module):
        def forward(self, x):
            return next(rows)[: len(x)]

    images = Images(np.zeros((20, 3, 1, 1), np.uint8), labels)
    rows = iter([logits[:5], logits[5:10], logits[10:15], logits[15:]])
    values = judge(Recited(), images, batch=5)
    for i, label in enumerate(labels):
        better = int((logits[i] > logits[i, label]).sum())
        probability = (logits[i, label].exp() / logits[i].exp().sum()).item()
        assert values["top1"][i] == (better < 1)
        assert values["top5"][i] == (better < 5)
        assert values["alignment"][i].item() == pytest.approx(probability)
        assert values["nll"][i].item() == pytest.approx(-np.log(probability))


def test_an_interrupted_run_ends_like_an_uninterrupted_one(recipe, run, stop_after):
    whole, parts = run("whole"), run("parts")
    assert train(recipe, whole, whole)
    assert final_state(whole)[0] == 12
    stop_after(Trainer, 7)
    assert not train(dataclasses.replace(recipe, steps=40), parts, parts)
    assert final_state(parts)[0] == 7
    stop_after(Trainer, None)
    assert train(recipe, parts, parts)
    assert_same_run(whole, parts)
    model = "model/model.safetensors"
    assert (whole / model).read_bytes() == (parts / model).read_bytes()


def test_a_run_learns_and_leaves_a_classifier(recipe, run):
    """Reference: the trainer's own network, up to half precision; chance is 1/3."""
    out = run("out")
    (out / "classes.json").write_text(json.dumps({str(i): {"name": name} for i, name in enumerate(("ant", "bee", "cow"))}))
    recipe = dataclasses.replace(recipe, steps=40, evaluate_every=20)
    assert train(recipe, out, out)
    losses = [row["loss"] for row in read_log(out / "loss.csv")]
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    report = json.loads((out / "evaluation.json").read_text())
    estimate, low, high = report["top1"]
    assert 1 / 3 < low <= estimate <= high
    assert report["images"] == 30

    classifier = load_classifier(str(out / "model"), device="cpu")
    assert (classifier.classes, classifier.size, classifier.digest) == (("ant", "bee", "cow"), 8, report["digest"])
    trainer = Trainer(recipe)
    trainer.load(out / "checkpoint.pt")
    images = Images.open(out, out / "cache", "validation", 8).take(np.arange(30))[0]
    with torch.no_grad():
        expected = trainer.model.eval()(images).softmax(dim=1)
    torch.testing.assert_close(classifier.probabilities(images), expected, rtol=0, atol=0.01)


def test_a_run_that_is_complete_only_writes_its_results_again(recipe, run, monkeypatch):
    out = run("out")
    train(recipe, out, out)
    before = (out / "evaluation.json").read_text()
    monkeypatch.setattr(module.Trainer, "step", None)
    assert train(recipe, out, out)
    assert (out / "evaluation.json").read_text() == before
