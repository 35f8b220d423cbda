"""The optional packages are stood in for by recorders: what they are given is what is tested, not what they answer."""

import importlib
import sys
import types

import pytest
import torch
from torch.nn.functional import cosine_similarity

from unsample.diagnostics import true_noise
from unsample.errors import ArgumentError, ModelError
from unsample.models import perceptual
from unsample.models.perceptual import PERCEPTUAL, clip_score, dino_cosine, dino_features, dreamsim, inception_features, lpips

LEVELS = torch.arange(256).float() / 127.5 - 1
"""The values of 8-bit pictures in [-1, 1]."""


@pytest.fixture(autouse=True)
def _no_networks_kept():
    perceptual._network.cache_clear()
    yield
    perceptual._network.cache_clear()


class Recorder(torch.nn.Module):
    """A network that keeps what it is given and answers with `answer` of it."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.calls = answer, []

    def forward(self, *args, **kwargs):
        assert not torch.is_grad_enabled()
        assert not self.training
        self.calls.append((*args, kwargs))
        return self.answer(*args, **kwargs)


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module of the name in place of the package; returns the arguments that its networks are built with."""

    def put(name, **contents):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(**contents))

    return put


def builder(network, built):
    def build(*args, **kwargs):
        built.append((args, kwargs))
        return network

    return build


def mean_gap(a, b, **_):
    return (a - b).abs().mean((1, 2, 3), keepdim=True)


def test_lpips_is_shown_images_in_minus_one_to_one(stand_in):
    network, built = Recorder(mean_gap), []
    stand_in("lpips", LPIPS=builder(network, built))
    a = LEVELS.reshape(1, 1, 16, 16).repeat(3, 3, 2, 2)
    found = lpips(a, torch.full_like(a, 0.5), batch=2)
    assert built == [((), {"net": "alex", "verbose": False})]
    assert [len(call[0]) for call in network.calls] == [2, 1]
    assert torch.equal(torch.cat([call[0] for call in network.calls]), a)
    assert all(call[2] == {"normalize": False} for call in network.calls)  # True would take them for [0, 1]
    assert torch.equal(found, (a - 0.5).abs().mean((1, 2, 3)).double())


def test_images_beyond_the_range_are_clamped_and_grey_ones_coloured(stand_in):
    network = Recorder(mean_gap)
    stand_in("lpips", LPIPS=builder(network, []))
    lpips(torch.full((1, 1, 32, 32), 1.5), torch.full((1, 1, 32, 32), -1.5), net="vgg")
    first, second, _ = network.calls[0]
    assert first.shape == (1, 3, 32, 32)
    assert first.unique().tolist() == [1]
    assert second.unique().tolist() == [-1]


def test_dreamsim_is_shown_224_pixels_in_zero_to_one(stand_in, monkeypatch, tmp_path):
    network, built = Recorder(lambda a, b: (a - b).mean((1, 2, 3))), []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    stand_in("dreamsim", dreamsim=builder((network, None), built))
    found = dreamsim(torch.full((2, 3, 20, 30), 0.5), torch.full((2, 3, 20, 30), -1.0), kind="dino_vitb16")
    ((_, options),) = built
    assert options == {"device": "cpu", "cache_dir": str(tmp_path / "hub" / "dreamsim"), "dreamsim_type": "dino_vitb16"}
    assert (tmp_path / "hub" / "dreamsim").is_dir()  # and not ./models
    first, second, _ = network.calls[0]
    assert first.shape == second.shape == (2, 3, 224, 224)
    assert found.tolist() == pytest.approx([0.75, 0.75])
    assert second.abs().max() < 1e-6


def test_resizing_is_pillows_bicubic(stand_in, monkeypatch, tmp_path):
    import numpy as np
    from PIL import Image

    network = Recorder(lambda a, b: (a - b).mean((1, 2, 3)))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    stand_in("dreamsim", dreamsim=builder((network, None), []))
    for side in (48, 500):
        values = (true_noise((3, side, side)) * 20 + 128).round()  # no value overshoots, which Pillow would clip halfway
        picture = Image.fromarray(values.permute(1, 2, 0).byte().numpy()).resize((224, 224), Image.Resampling.BICUBIC)
        x = (values / 127.5 - 1)[None]
        dreamsim(x, x)
        difference = network.calls[-1][0][0].permute(1, 2, 0).numpy() - np.asarray(picture) / 255
        assert np.abs(difference).max() < 1.5 / 255  # Pillow rounds to 8 bits after each direction


def transformers(network, built, words=None):
    class Loaded:
        def __init__(self, thing):
            self.thing = thing

        def from_pretrained(self, weights):
            built.append(weights)
            return self.thing

    def tokenizer(texts, **options):
        assert options == {"padding": True, "truncation": True, "return_tensors": "pt"}
        words.extend(texts)
        ids = torch.tensor([[len(text)] * 2 for text in texts])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return {"AutoModel": Loaded(network), "CLIPModel": Loaded(network), "AutoTokenizer": Loaded(tokenizer)}


def colours(mean, std, value):
    """A colour in [-1, 1] as torchvision's Normalize gives it: (value in [0, 1] - mean) / std."""
    return [((value + 1) / 2 - m) / s for m, s in zip(mean, std, strict=True)]


def test_clip_is_shown_its_own_colours_and_each_text(stand_in):
    def answer(pixel_values, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        text = torch.stack([input_ids[:, 0].float(), torch.ones(len(input_ids))], dim=1)
        return types.SimpleNamespace(image_embeds=pixel_values[:, :2, 0, 0], text_embeds=text)

    network, built, words = Recorder(answer), [], []
    stand_in("transformers", **transformers(network, built, words))
    images = torch.tensor([0.5, -0.5, 1.0])[:, None, None, None].expand(3, 3, 8, 8)
    found = clip_score(images, ["a", "bb", "ccc"], weights="my/clip", batch=2)
    assert (words, built) == (["a", "bb", "ccc"], ["my/clip", "my/clip"])
    seen = torch.cat([call[0]["pixel_values"] for call in network.calls])
    assert seen.shape == (3, 3, 224, 224)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    for row, value in zip(seen, (0.5, -0.5, 1.0), strict=True):
        assert row[:, 100, 100].tolist() == pytest.approx(colours(mean, std, value), abs=1e-5)
    expected = cosine_similarity(seen[:, :2, 0, 0], torch.tensor([[1.0, 1], [2, 1], [3, 1]]))
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_dino_is_shown_imagenets_colours_and_its_class_token_compared(stand_in):
    def answer(pixel_values):
        corner = pixel_values[:, :, 0, 0]
        return types.SimpleNamespace(last_hidden_state=torch.stack([corner, torch.full_like(corner, 99)], dim=1))

    network, built = Recorder(answer), []
    stand_in("transformers", **transformers(network, built))
    images = torch.tensor([0.5, -0.5])[:, None, None, None].expand(2, 3, 8, 8)
    features = dino_features(images)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    for row, value in zip(features, (0.5, -0.5), strict=True):
        assert row.tolist() == pytest.approx(colours(mean, std, value), abs=1e-5)
    assert dino_cosine(images, images.flip(0)).tolist() == pytest.approx(
        cosine_similarity(features, features.flip(0)).tolist()
    )
    assert built == ["facebook/dinov2-small"]  # loaded once for all three


def test_inception_is_shown_the_bytes_that_the_image_was_made_of(stand_in):
    network, built = Recorder(lambda x: (x.float().flatten(2).mean(2),)), []
    stand_in("torch_fidelity", FeatureExtractorInceptionV3=builder(network, built))
    found = inception_features(LEVELS.reshape(1, 1, 16, 16).expand(2, 3, 16, 16))
    assert built == [(("inception-v3-compat", ["2048"]), {})]
    shown = network.calls[0][0]
    assert shown.dtype == torch.uint8
    assert shown[0, 0].flatten().tolist() == list(range(256))
    assert found.tolist() == [[127.5] * 3] * 2


def calls(x):
    return {
        "lpips": lambda: lpips(x, x),
        "dreamsim": lambda: dreamsim(x, x),
        "clip": lambda: clip_score(x, ["a"]),
        "dino": lambda: dino_cosine(x, x),
        "inception": lambda: inception_features(x),
    }


@pytest.mark.parametrize("name", sorted(PERCEPTUAL))
def test_a_missing_package_is_told_in_one_line_with_what_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PERCEPTUAL[name].package, None)  # as if it were not installed
    with pytest.raises(ModelError) as caught:
        calls(torch.zeros(1, 3, 32, 32))[name]()
    says = str(caught.value)
    assert "\n" not in says
    assert PERCEPTUAL[name].install in says
    assert PERCEPTUAL[name].package in says


def test_what_a_package_lacks_itself_is_named(stand_in):
    def build(**_):
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    stand_in("lpips", LPIPS=build)
    with pytest.raises(ModelError, match=r"lpips: .*torchvision"):
        lpips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))


def test_weights_that_cannot_be_had_are_told_in_one_line(stand_in):
    def fail(*_):
        raise OSError("no such host\nand a long explanation")

    stand_in("torch_fidelity", FeatureExtractorInceptionV3=fail)
    with pytest.raises(ModelError, match=r"inception: its weights could not be loaded \(no such host\)"):
        inception_features(torch.zeros(1, 3, 32, 32))


def test_packages_that_print_do_not_print_here(stand_in, capsys):
    def build(**_):
        print("Loading model from: here")
        return Recorder(mean_gap)

    stand_in("lpips", LPIPS=build)
    lpips(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Loading" in printed.err


def test_importing_needs_no_package(monkeypatch):
    for extra in (*(e.package for e in PERCEPTUAL.values()), "torchvision"):
        monkeypatch.setitem(sys.modules, extra, None)
    assert importlib.reload(perceptual).PERCEPTUAL.keys() == PERCEPTUAL.keys()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: lpips(x, x[:1]), "one shape"),
        (lambda x: lpips(x[..., :16], x[..., :16]), "at least 32"),
        (lambda x: lpips(x * 255 + 255, x), "images: expected images in"),
        (lambda x: dreamsim(x, x * 255 + 255), "others: expected images in"),
        (lambda x: dreamsim(x[:, [0, 1, 2, 0]], x[:, [0, 1, 2, 0]]), "1 or 3 channels"),
        (lambda x: clip_score(x, ["one"]), "a list of 2.*given 1 texts"),
        (lambda x: clip_score(x, "ab"), "a list of 2.*given one string"),
        (lambda x: dino_features(x[0]), "4 dimensions"),
        (lambda x: inception_features(x, batch=0), "batch"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refusals(call, says, stand_in):
    stand_in("torch_fidelity", FeatureExtractorInceptionV3=lambda *_: Recorder(None))
    with pytest.raises(ArgumentError, match=says):
        call(torch.zeros(2, 3, 32, 32))
