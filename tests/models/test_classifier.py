"""The bundled classifier: what it computes, what it is given, and everything that can be wrong with its files."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import unsample as us
from unsample.models import classifier as module
from unsample.models.classifier import load_classifier
from unsample.pictures.read import demo_photos, read_photos

FOLDER = Path(module.__file__).parent / "weights" / "tiny-imagenet-32-classifier"


@pytest.fixture(scope="module")
def classifier():
    return load_classifier(device="cpu")


@pytest.fixture(scope="module")
def photos():
    """The eight photographs, (8, 3, 64, 64) in [-1, 1]."""
    return torch.stack([photo.pixels for photo in read_photos(demo_photos(), (64, 64))])


@pytest.fixture
def copy(tmp_path):
    """A copy of the bundled files, to be damaged."""
    return shutil.copytree(FOLDER, tmp_path / "classifier")


def by_hand(x, w):
    """Reference: the network written out in float64, with every norm as (x - mean) / sqrt(var + 1e-5) * weight + bias."""
    config = json.loads((FOLDER / "config.json").read_text())["model"]

    def norm(x, name):
        mean, var, scale, bias = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return ((x.movedim(1, -1) - mean) / (var + 1e-5).sqrt() * scale + bias).movedim(-1, 1)

    def convolve(x, name, stride):
        return functional.conv2d(x, w[f"{name}.weight"], stride=stride, padding=w[f"{name}.weight"].shape[-1] // 2)

    x = norm(convolve(x, "stem", config["strides"][0]), "stem_norm").clamp(min=0)
    for index, stride in enumerate(config["strides"][1:]):
        block = f"blocks.{index}"
        inner = norm(convolve(x, f"{block}.first", stride), f"{block}.first_norm").clamp(min=0)
        inner = norm(convolve(inner, f"{block}.second", 1), f"{block}.second_norm")
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // stride, stride, width // stride, stride).mean(dim=(3, 5))
        x = convolve(x, f"{block}.project", 1) if f"{block}.project.weight" in w else x
        x = (inner + x).clamp(min=0)
    features = x.mean(dim=(2, 3))
    logits = features @ w["head.weight"].T + w["head.bias"]
    return features, logits.exp() / logits.exp().sum(dim=1, keepdim=True)


def test_it_computes_what_its_weights_say(classifier, photos):
    """Reference: `by_hand` on means of 2x2 pixels."""
    small = photos.double().reshape(8, 3, 32, 2, 32, 2).mean(dim=(3, 5))
    weights = {name: tensor.double() for name, tensor in load_file(FOLDER / "model.safetensors").items()}
    features, probabilities = by_hand(small, weights)
    torch.testing.assert_close(classifier.features(photos).double(), features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(classifier.probabilities(photos).double(), probabilities, rtol=1e-4, atol=1e-6)


def test_photographs(classifier, photos):
    features, probabilities = classifier.features(photos), classifier.probabilities(photos)
    assert (features.shape, features.dtype) == ((8, 192), torch.float32)
    assert (probabilities.shape, probabilities.dtype) == ((8, 200), torch.float32)
    assert features.min() >= 0
    assert (features.std(dim=0) > 0).float().mean() > 0.9, "the features tell photographs apart"
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(8))
    assert not features.requires_grad
    assert torch.equal(classifier.features(photos), features)


def test_an_image_does_not_depend_on_its_batch(classifier):
    """Reference: the images one by one; 150 of them are more than one block."""
    images = torch.rand(150, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = torch.cat([classifier.features(images[i : i + 1]) for i in (0, 77, 149)])
    torch.testing.assert_close(classifier.features(images)[[0, 77, 149]], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tall", "wide"), [(1, 1), (2, 2), (3, 2), (8, 8)])
def test_larger_images_are_averaged_by_areas(classifier, tall, wide):
    """Reference: the mean of each block of pixels."""
    images = torch.rand(2, 3, 32 * tall, 32 * wide, generator=torch.Generator().manual_seed(1)) * 2 - 1
    means = images.reshape(2, 3, 32, tall, 32, wide).mean(dim=(3, 5))
    torch.testing.assert_close(classifier.features(images), classifier.features(means), rtol=1e-4, atol=1e-5)


def test_float64_and_half_are_taken(classifier, photos):
    assert torch.equal(classifier.features(photos.double()), classifier.features(photos))
    torch.testing.assert_close(classifier.features(photos.half()), classifier.features(photos), rtol=0.05, atol=0.05)


def test_class_alignment_is_the_probability_of_the_label(classifier, photos):
    probabilities = classifier.probabilities(photos)
    labels = [0, 1, 199, "goldfish", "tabby", "30", 7, 7]
    index = [0, 1, 199, 0, classifier.classes.index("tabby"), 30, 7, 7]
    expected = probabilities[range(8), index]
    assert torch.equal(classifier.class_alignment(photos, labels), expected)
    assert torch.equal(classifier.class_alignment(photos, torch.tensor(index)), expected)


def test_by_chance_it_is_one_in_as_many_as_there_are_classes(classifier, photos):
    """Null: over all labels, the mean of any image is 1/200 exactly."""
    for photo in photos[:3]:
        same = photo.expand(200, -1, -1, -1)
        assert classifier.class_alignment(same, range(200)).mean().item() == pytest.approx(1 / 200, rel=1e-5)


def test_its_classes_are_those_of_the_diffusion_model(classifier):
    assert classifier.classes == us.load(device="cpu").conditioner.names


def test_its_card_is_of_these_weights(classifier):
    card = (FOLDER / "README.md").read_text()
    parameters = sum(weight.numel() for weight in classifier.network.parameters())
    assert classifier.digest in card
    assert f"{parameters:,} parameters" in card
    assert (FOLDER / "model.safetensors").stat().st_size < 4e6


def test_loading_leaves_the_random_numbers_alone():
    state = torch.get_rng_state()
    load_classifier(device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_directory(copy, classifier, photos):
    same = load_classifier(str(copy), device="cpu")
    assert dataclasses.replace(same, name=classifier.name, network=classifier.network) == classifier
    assert same.name == "classifier"
    assert torch.equal(same.features(photos), classifier.features(photos))
    rescale(copy, "head.bias", 1.5)
    assert load_classifier(str(copy), device="cpu").digest != classifier.digest


# What is refused


@pytest.mark.parametrize(
    ("shape", "says"),
    [((1, 1, 32, 32), "3 channels"), ((1, 4, 32, 32), "3 channels"), ((0, 3, 32, 32), "at least one value")],
)
def test_images_of_another_kind(classifier, shape, says):
    with pytest.raises(us.ArgumentError, match=says):
        classifier.features(torch.zeros(shape))


@pytest.mark.parametrize(("value", "says"), [(float("nan"), "finite"), (255.0, r"in \[-1, 1\]")])
def test_values_that_are_no_images(classifier, value, says):
    with pytest.raises(us.ArgumentError, match=says):
        classifier.probabilities(torch.full((1, 3, 32, 32), value))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["goldfsh", 0], "did you mean 'goldfish'"),
        ([200, 0], "0..199"),
        ([-1, 0], "0..199"),
        ([0], "one per image, given 1 for 2"),
    ],
)
def test_labels_that_are_none(classifier, labels, says):
    with pytest.raises(us.ArgumentError, match=says):
        classifier.class_alignment(torch.zeros(2, 3, 32, 32), labels)


def test_a_name_that_no_one_has():
    with pytest.raises(us.UnsampleError, match="did you mean 'tiny-imagenet-32-classifier'"):
        load_classifier("tiny-imagenet-32-classifer")


def refused(folder, says):
    """`load_classifier` refuses in one line."""
    with pytest.raises(us.ModelError, match=says) as caught:
        load_classifier(str(folder), device="cpu")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def rewrite(folder, **changes):
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


def rescale(folder, name, factor):
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name] * factor
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("part", ["config.json", "model.safetensors"])
def test_a_missing_file(copy, part):
    (copy / part).unlink()
    refused(copy, f"expected {part}")


def test_a_cut_file(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    refused(copy, "cannot load the classifier")


def test_a_pickle_in_its_place(copy):
    torch.save({"head.bias": torch.zeros(200)}, copy / "model.safetensors")
    refused(copy, "cannot load the classifier")


def test_weights_that_are_not_finite(copy):
    rescale(copy, "head.bias", float("nan"))
    refused(copy, "not finite in head.bias")


def test_a_weight_that_is_missing(copy):
    tensors = load_file(copy / "model.safetensors")
    del tensors["head.bias"]
    save_file(tensors, copy / "model.safetensors")
    refused(copy, "head.bias")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": ...}, "lacks model"),
        ({"names": ["one"]}, "names 1 classes for 200 outputs"),
        ({"size": 0}, "size 0"),
        ({"model": {"widths": [8, 16], "strides": [1, 2], "classes": 200}}, "size mismatch|Unexpected key"),
        ({"model": {"depth": 3}}, "depth|widths"),
    ],
)
def test_a_config_that_does_not_fit(copy, changes, says):
    rewrite(copy, **changes)
    refused(copy, says)


def test_a_config_that_is_not_json(copy):
    (copy / "config.json").write_text("{")
    refused(copy, "cannot load the classifier")
