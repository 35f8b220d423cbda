"""The editing benchmark: its numbers against a naive computation of the published ones, and a folder that is not trusted."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from unsample.diagnostics import bootstrap
from unsample.diagnostics.row import format_number
from unsample.errors import ArgumentError, ImageError, ModelError, RunError, UnknownNameError
from unsample.models import perceptual
from unsample.models.classifier import load_classifier
from unsample.pictures.read import Photo, png_bytes, save_png
from unsample.studies.pie_bench import (
    TARGET_CLASS,
    Compared,
    Labelled,
    Perception,
    Scores,
    background_mse,
    background_psnr,
    background_ssim,
    decode_mask,
    dino_keys,
    encode_mask,
    make_small_set,
    measure,
    read_labelled,
    read_layout,
    self_similarity,
    structure_distance,
)
from unsample.studies.pie_bench import metrics as measures
from unsample.studies.pie_bench.metrics import METRICS, blackened, clip_percent, eight_bit, lpips_squeeze
from unsample.studies.pie_bench.report import by_type

from .edit_sets import KEYS, change, pictures, write_parquet

SIDE = 16
NAMES = [metric.name for metric in METRICS]
NETWORKS = ("structure distance", "LPIPS", "CLIP whole", "CLIP edited")


def regions(count, side=SIDE, seed=0):
    return torch.rand((count, side, side), generator=torch.Generator().manual_seed(seed)) < 0.4


def absolute(a, b):
    """A stand-in for networks that compare."""
    return (a - b).abs().mean((1, 2, 3)).double()


def brightness(images, texts):
    """A stand-in for CLIP."""
    return images.mean((1, 2, 3)).double() + torch.tensor([len(text) for text in texts])


def invert_colours(image, source, target, region):
    return -image


STAND_INS = Perception(absolute, absolute, brightness)
NEGATIVE = {"negative": invert_colours}


@pytest.fixture
def folder(tmp_path):
    """A folder of three entries with pictures of 16 x 16."""
    mapping = {}
    for index, image in enumerate(pictures(3)):
        save_png(image, tmp_path / "annotation_images" / f"1_object/{index}.png")
        mapping[f"{index:012d}"] = {
            "image_path": f"1_object/{index}.png",
            "original_prompt": "a photo of a [cat]",
            "editing_prompt": "a photo of a [dog]",
            "editing_instruction": "change the cat to a dog",
            "editing_type_id": str(index),
            "blended_word": "cat dog",
            "mask": [SIDE * 4, SIDE * 8],
        }
    (tmp_path / "mapping_file.json").write_text(json.dumps(mapping))
    return tmp_path


@pytest.fixture
def layout(folder):
    return read_layout(folder)


@pytest.fixture
def scores(layout):
    """Of pictures in negative."""
    return measure(layout, NEGATIVE, perception=STAND_INS)


@pytest.fixture
def changed(folder):
    """Change the first entry of the folder."""

    def changed(**fields):
        change(folder, 0, **fields)
        return read_layout(folder)

    return changed


# --- masks


@pytest.mark.parametrize("border", [True, False])
def test_masks_decode_as_published(border):
    """Reference: a loop over the pixels of each run, then the four sides set, as the published evaluation does."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        height, width = generator.integers(2, 9, 2).tolist()
        runs = [int(v) for _ in range(4) for v in (generator.integers(0, height * width), generator.integers(0, 9))]
        expected = np.zeros(height * width, dtype=bool)
        for start, length in zip(runs[::2], runs[1::2], strict=True):
            for j in range(min(length, height * width - start)):
                expected[start + j] = True
        expected = expected.reshape(height, width)
        if border:
            expected[0, :] = expected[-1, :] = expected[:, 0] = expected[:, -1] = True
        assert (decode_mask(runs, (height, width), border=border, cut=True).numpy() == expected).all()


def test_the_border_counts_as_edited_unless_asked_not_to():
    assert int(decode_mask([], (512, 512)).sum()) == 4 * 511
    assert int(decode_mask([], (512, 512), border=False).sum()) == 0


def test_a_mask_is_encoded_and_decoded():
    for seed, share in enumerate((0.0, 0.1, 0.5, 1.0)):
        mask = torch.rand((5, 7), generator=torch.Generator().manual_seed(seed)) < share
        assert torch.equal(decode_mask(encode_mask(mask), (5, 7), border=False), mask)


@pytest.mark.parametrize(
    ("runs", "says"),
    [
        ([1, 2, 3], "pairs"),
        ([-1, 2], "'-1'"),
        ([1, -2], "'-2'"),
        ([0.5, 2], "'0.5'"),
        ([True, 2], "'True'"),
        (["1", 2], "'1'"),
        ([None, 2], "'None'"),
        ([10, 7], "pixel 17 of 16"),
        ([17, 0], "pixel 17 of 16"),
        ([10**30, 1], "of 16"),
    ],
)
def test_an_odd_mask_is_refused_in_one_line(runs, says):
    with pytest.raises(ArgumentError, match=says) as caught:
        decode_mask(runs, (4, 4))
    assert "\n" not in str(caught.value)


def test_runs_beyond_the_end_are_cut_when_asked_to():
    mask = decode_mask([14, 10**30, 99, 3], (4, 4), border=False, cut=True)
    assert mask.flatten().nonzero().flatten().tolist() == [14, 15]


# --- the folder


def test_a_layout_is_read(layout):
    assert not layout.failed
    first = layout.entries[0]
    assert (first.key, first.kind, first.blended_word) == ("000000000000", "0", "cat dog")
    assert (first.source_prompt, first.target_prompt) == ("a photo of a [cat]", "a photo of a [dog]")
    image, region = first.load(border=False)
    assert torch.allclose(image, pictures(3)[:1], atol=1e-6)
    expected = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    expected[:, 4:12] = True
    assert torch.equal(region, expected)


def test_kinds_and_limit_choose_entries(folder):
    assert [e.kind for e in read_layout(folder, kinds={"1", "2"}).entries] == ["1", "2"]
    assert [e.kind for e in read_layout(folder, limit=2).entries] == ["0", "1"]


def test_a_picture_and_its_region_are_averaged_together(layout):
    """The region of rows 4..11 of 16 is that of rows 2..5 of 8; the border is drawn before, and half of a pixel counts."""
    image, region = layout.entries[0].load((8, 8), border=False)
    assert image.shape == (1, 3, 8, 8)
    assert region[0].any(1).nonzero().reshape(-1).tolist() == [2, 3, 4, 5]
    assert region[0, 2:6].all()
    _, bordered = layout.entries[0].load((8, 8))
    assert bordered[0, 0].all()
    assert not bordered[0, 1, 1:-1].any()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "holds a list"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (None, "cannot read"),
    ],
)
def test_a_damaged_mapping_file_is_reported_in_one_line(tmp_path, text, says):
    if text is not None:
        (tmp_path / "mapping_file.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArgumentError, match=says) as caught:
        read_layout(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../secret.png", "1_object/../../secret.png", "..\\secret.png", "C:\\secret.png", "C:secret.png", "a\0b"],
)
def test_a_path_that_leads_out_is_refused_and_no_other_entry_is_lost(changed, path):
    layout = changed(image_path=path)
    assert [entry.kind for entry in layout.entries] == ["1", "2"]
    assert "image_path" in layout.failed[0].reason
    assert layout.failed[0].key == "000000000000"


def test_a_link_that_leads_out_is_refused(folder, changed, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    save_png(pictures(1)[0], outside)
    os.symlink(outside, folder / "annotation_images" / "link.png")
    assert "by a link" in changed(image_path="link.png").failed[0].reason


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"image_path": 3}, "image_path: expected text"),
        ({"image_path": ""}, "image_path: expected text"),
        ({"original_prompt": None}, "original_prompt: expected text"),
        ({"editing_prompt": ["a"]}, "editing_prompt: expected text"),
        ({"mask": "1 2"}, "mask: expected a list"),
        ({"mask": None}, "mask: expected a list"),
    ],
)
def test_an_odd_entry_is_reported_and_no_other_is_lost(changed, fields, says):
    layout = changed(**fields)
    assert says in layout.failed[0].reason
    assert len(layout.entries) == 2


def test_an_entry_that_is_no_object_is_reported(folder):
    (folder / "mapping_file.json").write_text('{"0": 3}')
    assert "given int" in read_layout(folder).failed[0].reason


@pytest.mark.parametrize(
    ("fields", "says"),
    [({"image_path": "1_object/9.png"}, "no such picture"), ({"mask": [0, 9999]}, "pixel 9999"), ({"mask": [1]}, "pairs")],
)
def test_what_fails_when_loaded_loses_no_other_entry(changed, fields, says):
    scores = measure(changed(**fields), {"same": lambda image, *_: image}, perception=STAND_INS)
    assert scores.entries == 2
    assert [(one.key, one.row) for one in scores.failed] == [("000000000000", "")]
    assert says in scores.failed[0].reason
    assert len(scores.values["same"]["MSE"]) == 2


def test_a_damaged_picture_is_reported(folder, changed):
    (folder / "annotation_images" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="not a picture"):
        changed(image_path="bad.png").entries[0].load()


# --- the numbers


def published(images, region):
    """Reference: 8-bit pixels over 255, multiplied with the mask of the background, float32 (batch, 3, height, width)."""
    pixels = ((images + 1) * 127.5).round().numpy().astype(np.uint8).astype(np.float32) / 255
    return pixels * (1 - region.numpy().astype(np.float32))[:, None]


def test_background_numbers_are_the_published_ones():
    """Reference: `published` and the textbook formulas in numpy; torchmetrics' SSIM, which the published evaluation calls."""
    source, edited, region = pictures(4), pictures(4, seed=1), regions(4)
    a, b = published(source, region), published(edited, region)
    squared = ((a - b).astype(np.float64) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(background_mse(source, edited, region).numpy(), squared, rtol=1e-5)
    np.testing.assert_allclose(background_psnr(source, edited, region).numpy(), 10 * np.log10(1 / squared), rtol=1e-5)
    theirs = [
        float(structural_similarity_index_measure(torch.tensor(b[i : i + 1]), torch.tensor(a[i : i + 1]), data_range=1.0))
        for i in range(4)
    ]
    np.testing.assert_allclose(background_ssim(source, edited, region).numpy(), theirs, atol=1e-6)


def test_pixels_of_the_region_count_as_equal():
    """The quirk: with the same error in every pixel, a region of three quarters adds 10 log10(4) dB."""
    source, edited = torch.zeros(2, 3, SIDE, SIDE), torch.full((2, 3, SIDE, SIDE), 0.2)
    region = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    region[1, : SIDE * 3 // 4] = True
    none, most = background_psnr(source, edited, region).tolist()
    assert none == pytest.approx(20.0, abs=1e-5)
    assert most - none == pytest.approx(10 * np.log10(4), abs=1e-9)


def test_without_a_background_there_is_no_number():
    source, edited, region = pictures(2), pictures(2, seed=1), regions(2)
    region[0] = True
    for number in (background_psnr, background_mse, background_ssim):
        first, second = number(source, edited, region).tolist()
        assert np.isnan(first)
        assert np.isfinite(second)


def test_what_networks_are_shown(monkeypatch):
    """LPIPS sees both images black inside the region, CLIP the edited one black outside of it, and structure whole images."""
    seen = {}

    def keep(name):
        def function(*given):
            seen.setdefault(name, []).append(given)
            return torch.ones(len(given[0]), dtype=torch.float64)

        return function

    source, edited, region = pictures(2), pictures(2, seed=1), regions(2)
    compared, perception = Compared(source, edited, region, ("a", "b")), Perception(*map(keep, ("structure", "lpips", "clip")))
    for metric in METRICS:
        metric.of(compared, perception)
    assert seen["structure"] == [(source, edited)]
    (lpips,) = seen["lpips"]
    assert all(torch.equal(x, torch.where(region[:, None], -1.0, y)) for x, y in zip(lpips, (source, edited), strict=True))
    whole, inside = seen["clip"]
    assert whole[0] is edited
    assert torch.equal(inside[0], torch.where(region[:, None], edited, torch.tensor(-1.0)))
    assert whole[1] == inside[1] == ("a", "b")


def test_a_region_without_pixels_has_no_clip():
    compared = Compared(pictures(1), pictures(1), torch.zeros(1, SIDE, SIDE, dtype=torch.bool), ("a",))
    (number,) = [metric for metric in METRICS if metric.name == "CLIP edited"]
    assert torch.isnan(number.of(compared, STAND_INS)).all()


def test_the_networks_are_the_published_ones(monkeypatch):
    """SqueezeNet's LPIPS; 100 times the cosine of CLIP ViT-L/14, not below 0, as torchmetrics' CLIPScore."""
    monkeypatch.setattr(measures, "lpips", lambda images, others, net: torch.tensor([float(net == "squeeze")]).double())
    monkeypatch.setattr(
        measures,
        "clip_score",
        lambda images, texts, weights: torch.tensor([0.25, -0.1 * ("large-patch14" in weights)]).double(),
    )
    assert lpips_squeeze(pictures(1), pictures(1)).tolist() == [1.0]
    assert clip_percent(pictures(2), ["a", "b"]).tolist() == [25.0, 0.0]


def test_blackened_is_a_product_in_unit_range():
    images, region = pictures(2), regions(2)
    assert torch.allclose((blackened(images, region) + 1) / 2, (images + 1) / 2 * ~region[:, None])


# --- structure distance


def test_structure_distance_against_a_loop():
    """Reference: the cosine of every pair of tokens in a loop, and the mean of squared differences."""
    keys = {float(seed): torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)}

    def cosines(x):
        return np.array([[float(torch.cosine_similarity(a, b, dim=0)) for b in x] for a in x])

    expected = [((cosines(a) - cosines(b)) ** 2).mean() for a, b in zip(keys[0.0], keys[1.0], strict=True)]
    images, others = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    found = structure_distance(images, others, keys=lambda x: keys[float(x[0, 0, 0, 0])])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


def test_no_keys_have_no_cosine():
    assert self_similarity(torch.zeros(1, 2, 3)).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


@pytest.fixture(scope="module")
def vit():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    return ViTModel(ViTConfig(**shape, image_size=224, patch_size=56)).eval()


@pytest.mark.parametrize("white", [255.0, 1.0])
def test_keys_are_those_of_the_last_layer(vit, monkeypatch, white):
    """Reference: the last layer's norm and key projection, applied by hand to the state before it; colours in numpy.

    White is 255 by default: the published evaluation does not divide its pixels by 255.
    """
    monkeypatch.setattr(perceptual, "_network", lambda *given: vit)
    images = pictures(3, side=224)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((images.permute(0, 2, 3, 1).numpy() + 1) / 2 * white - mean) / std
    with torch.no_grad():
        states = vit(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2), output_hidden_states=True).hidden_states
        last = vit.layers[-1]
        expected = last.attention.k_proj(last.layernorm_before(states[-2]))
    found = dino_keys(images, batch=2) if white == 255 else dino_keys(images, white=white, batch=2)
    assert found.shape == (3, 17, 8)
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_network_without_keys_is_refused(monkeypatch):
    monkeypatch.setattr(perceptual, "_network", lambda *given: torch.nn.Conv2d(3, 3, 1))
    with pytest.raises(ModelError, match="vision transformer"):
        dino_keys(pictures(1))


# --- rows and scores


class Halved:
    """A codec that loses something."""

    scale = 1

    def encode(self, images):
        return images / 2

    def decode(self, latents):
        return latents


def test_rows_and_their_controls(layout):
    scores = measure(layout, NEGATIVE, codec=Halved(), perception=STAND_INS)
    pasted = "negative, source pasted outside"
    assert list(scores.values) == ["source, unedited", "codec alone", "negative", pasted]
    for row in ("source, unedited", pasted):
        assert scores.mean(row, "MSE").estimate == 0
        assert scores.mean(row, "PSNR").estimate == np.inf
        assert scores.mean(row, "SSIM").estimate == pytest.approx(1, abs=1e-6)
    assert scores.mean("source, unedited", "structure distance").estimate == 0
    assert scores.mean(pasted, "structure distance").estimate > 0
    assert scores.mean(pasted, "CLIP edited").estimate == scores.mean("negative", "CLIP edited").estimate
    assert 0 < scores.mean("codec alone", "MSE").estimate < scores.mean("negative", "MSE").estimate


def test_values_are_those_of_the_functions(layout, scores):
    """Reference: the functions on each entry by itself, and the bootstrap of their values."""
    for entry in layout.entries:
        image, region = entry.load()
        expected = float(background_psnr(image, eight_bit(-image), region))
        assert scores.values["negative"]["PSNR"][entry.key] == pytest.approx(expected, abs=1e-9)
    assert scores.mean("negative", "PSNR") == bootstrap(list(scores.values["negative"]["PSNR"].values()))


def test_an_entry_without_a_background_is_left_out_of_its_means_alone(changed):
    scores = measure(changed(mask=[0, SIDE * SIDE]), NEGATIVE, perception=STAND_INS)
    counts = {name: len(column) for name, column in scores.values["negative"].items()}
    assert counts == {name: 2 if name in ("PSNR", "LPIPS", "MSE", "SSIM") else 3 for name in NAMES}
    assert np.isfinite(scores.mean("negative", "PSNR").high)
    assert not scores.failed


def test_edits_are_measured_as_8_bit_pictures(layout):
    """Less than half of an 8-bit step is nothing, and what leaves [-1, 1] is clamped."""
    ways = {"a little": lambda image, *_: image + 0.4 / 127.5, "far": lambda image, *_: 3 + 0 * image}
    scores = measure(layout, ways, perception=STAND_INS)
    assert scores.mean("a little", "MSE").estimate == 0
    assert scores.mean("far", "MSE").estimate <= 1


def test_an_edit_is_given_prompts_without_brackets_and_the_region(layout):
    says = []

    def edit(image, source, target, region):
        says.append((image.shape, source, target, region.shape))
        image.zero_()  # its own copy
        region.fill_(True)
        return image

    scores = measure(layout, {"zero": edit}, size=(12, 12), perception=STAND_INS)
    assert says == [((1, 3, 12, 12), "a photo of a cat", "a photo of a dog", (1, 12, 12))] * 3
    assert scores.mean("source, unedited", "MSE").estimate == 0
    assert scores.mean("zero", "MSE").estimate > 0


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda image, *_: image[:, :1], "of shape (1, 3, 16, 16)"),
        (lambda image, *_: None, "given NoneType"),
        (lambda image, *_: image.to(torch.uint8), "given torch.uint8"),
        (lambda image, *_: image * torch.nan, "finite"),
        (lambda image, *_: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_an_edit_that_fails_loses_nothing_else(layout, edit, says):
    calls = []

    def second(image, *given):
        calls.append(1)
        return edit(image, *given) if len(calls) == 2 else image

    scores = measure(layout, {"second": second, "good": invert_colours}, perception=STAND_INS)
    (failure,) = scores.failed
    assert (failure.key, failure.row) == ("000000000001", "second")
    assert says in failure.reason
    assert "\n" not in str(failure)
    assert [len(scores.values[row]["MSE"]) for row in scores.values] == [3, 2, 2, 3, 3]


def test_missing_networks_leave_their_columns_and_are_tried_once(layout):
    calls = []

    def missing(images, _):
        calls.append(1)
        raise ModelError("needs a package")

    scores = measure(layout, NEGATIVE, perception=Perception(missing, missing, missing))
    assert len(calls) == 4
    assert set(scores.reasons) == set(NETWORKS)
    table = scores.table()
    row = dict(zip(table.head, table.rows[1], strict=True))
    empty = ["structure distance ↓", "LPIPS ↓", "CLIP whole ↑", "CLIP edited ↑"]
    assert [head for head, cell in row.items() if cell == "-"] == empty
    assert scores.table(empty=False).head == tuple(head for head in table.head if head not in empty)
    assert row["PSNR ↑"].endswith(" (3)")
    assert "LPIPS: needs a package" in list(scores.notes())


def test_the_missing_package_is_named(folder, monkeypatch):
    """Without stand-ins: lpips is not installed where this runs, or is made to seem so."""
    monkeypatch.setitem(sys.modules, "lpips", None)
    perceptual._network.cache_clear()
    save_png(pictures(1, side=32)[0], folder / "annotation_images" / "1_object/0.png")
    perception = Perception(absolute, lpips_squeeze, brightness)
    scores = measure(read_layout(folder, limit=1), NEGATIVE, perception=perception)
    assert "pip install lpips" in scores.reasons["LPIPS"]


def test_images_too_small_for_a_number_have_the_others(layout):
    scores = measure(layout, NEGATIVE, size=(8, 8), perception=STAND_INS)
    assert "at least 11 pixels" in scores.reasons["SSIM"]
    assert not scores.values["negative"]["SSIM"]
    assert len(scores.values["negative"]["MSE"]) == 3


def test_scores_are_json(scores):
    says = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert says["rows"]["source, unedited"]["PSNR"] == {"mean": "inf", "low": "inf", "high": "inf", "n": 3}
    mean = scores.mean("negative", "MSE")
    assert says["rows"]["negative"]["MSE"] == {"mean": mean.estimate, "low": mean.low, "high": mean.high, "n": 3}
    assert says["entries"] == 3
    assert list(says["better"]) == NAMES


def test_one_entry_has_no_interval(folder):
    scores = measure(read_layout(folder, limit=1), NEGATIVE, perception=STAND_INS)
    assert scores.to_dict()["rows"]["negative"]["MSE"]["low"] is None
    assert "[" not in scores.table().rows[1][4]


def test_scores_come_back_from_json(changed):
    scores = measure(changed(mask=[0, SIDE * SIDE]), NEGATIVE, perception=STAND_INS)
    back = Scores.from_dict(json.loads(json.dumps(scores.to_dict())))
    assert back.to_dict() == scores.to_dict()
    assert back.table() == scores.table()
    with pytest.raises(RunError, match="values"):
        Scores.from_dict({})


def test_types_of_edits(changed):
    """Reference: the values of each entry by itself; the kinds of the fixture are 0, 1 and 2."""
    scores = measure(changed(editing_type_id="2"), NEGATIVE, perception=STAND_INS)
    types, keys = scores.by_type(), KEYS
    assert list(types) == ["change object", "add object"]
    values = scores.values["negative"]["MSE"]
    assert types["change object"].values["negative"]["MSE"] == {keys[1]: values[keys[1]]}
    assert types["add object"].mean("negative", "MSE") == bootstrap([values[keys[0]], values[keys[2]]])
    assert (types["add object"].entries, types["change object"].entries) == (2, 1)
    assert by_type(scores).rows[0][:2] == ("change object", "source, unedited")


def test_a_difference_is_of_the_same_entries(layout):
    """Reference: the bootstrap of differences, entry by entry, without that which one of both lacks."""
    ways = {"negative": invert_colours, "grey": lambda image, *_: image * 0}
    scores = measure(layout, ways, perception=STAND_INS)
    a, b = scores.values["negative"]["MSE"], scores.values["grey"]["MSE"]
    del b["000000000001"]
    expected = bootstrap([a[key] - b[key] for key in b])
    assert scores.difference("negative", "grey", "MSE") == expected
    assert scores.difference("negative", "negative", "MSE").estimate == 0
    assert np.isnan(scores.difference("source, unedited", "source, unedited", "PSNR").estimate)
    table = scores.against("grey", ["negative"])
    cell = dict(zip(table.head, table.rows[0], strict=True))["MSE ↓"]
    assert cell == format_number(expected.estimate)  # of so few there is no interval, and no star


def test_a_target_that_is_no_class_has_no_probability():
    """Reference: `class_alignment` of the classifier."""
    images, region = pictures(2, side=32), regions(2, side=32)
    values = TARGET_CLASS.of(Compared(images, images, region, ("lion", "a photo of a lion")), STAND_INS)
    expected = load_classifier(device="cpu").class_alignment(images[:1], ["lion"])
    assert values[0] == pytest.approx(float(expected), rel=1e-5)
    assert torch.isnan(values[1])


def test_unknown_rows_and_bad_names_are_refused(layout, scores):
    with pytest.raises(UnknownNameError, match="row"):
        scores.mean("positive", "PSNR")
    with pytest.raises(UnknownNameError, match="number"):
        scores.mean("negative", "psnr")
    for ways in ({}, {"codec alone": invert_colours}):
        with pytest.raises(ArgumentError, match="edits"):
            measure(layout, ways)


# --- a small set


def labelled(count=6):
    names = ("ant", "bee", "cow")
    return [Labelled(Photo.of(x, f"{i}"), names[i % 3]) for i, x in enumerate(pictures(count))]


def test_a_small_set_is_read_back(tmp_path):
    photos = labelled()
    make_small_set(photos, tmp_path)
    layout = read_layout(tmp_path)
    assert not layout.failed
    for one, entry in zip(photos, layout.entries, strict=True):
        image, region = entry.load(border=False)
        assert torch.allclose(image[0], one.photo.pixels, atol=1e-6)
        assert entry.source_prompt == f"a photo of a [{one.name}]"
        target = entry.target_prompt.removeprefix("a photo of a [").removesuffix("]")
        assert target in {"ant", "bee", "cow"} - {one.name}
        assert entry.blended_word == f"{one.name} {target}"
        expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        expected[2:14, 2:14] = True
        assert torch.equal(region[0], expected)


def test_targets_depend_on_the_photograph_and_the_seed_alone(tmp_path):
    def targets(photos, name, seed=0):
        make_small_set(photos, tmp_path / name, targets=[f"class {i}" for i in range(20)], template="[{}]", seed=seed)
        return [entry.target_prompt for entry in read_layout(tmp_path / name).entries]

    first = targets(labelled(), "a")
    assert targets(labelled()[::-1], "b") == first[::-1]
    assert targets(labelled(), "c", seed=1) != first
    assert len(set(first)) > 1


def test_textured_regions_are_coarse_cells_that_are_not_plain(tmp_path):
    """Plain but for the upper left quarter, which is noise: that is the region."""
    image = torch.zeros(3, 64, 64)
    image[:, :32, :32] = pictures(1, side=32)[0]
    make_small_set([Labelled(Photo.of(image, "0"), "ant")], tmp_path, targets=["bee"], region="textured")
    _, region = read_layout(tmp_path).entries[0].load(border=False)
    expected = torch.zeros(64, 64, dtype=torch.bool)
    expected[:32, :32] = True
    assert torch.equal(region[0], expected)


def test_photographs_may_be_drawn_from_a_file_that_is_sorted(parquet):
    """Reference: the whole file; the draw is of the seed alone, in the order of the file."""
    path = parquet(label=[0, 0, 1])
    whole = read_labelled(path, ["ant", "bee"], (8, 8))
    drawn = [read_labelled(path, ["ant", "bee"], (8, 8), 2, seed=seed) for seed in range(8)]
    places = [[[one.photo.id for one in whole].index(each.photo.id) for each in found] for found in drawn]
    assert all(place == sorted(place) for place in places)
    assert len({tuple(place) for place in places}) > 1
    assert [[each.name for each in found] for found in drawn] == [[whole[i].name for i in place] for place in places]


def test_a_small_set_is_refused_where_it_cannot_be(tmp_path):
    with pytest.raises(ArgumentError, match="other than 'ant'"):
        make_small_set(labelled(1), tmp_path)
    for photos, options in (([], {}), (labelled(), {"template": "a photo"})):
        with pytest.raises(ArgumentError, match="template"):
            make_small_set(photos, tmp_path, **options)
    assert not list(tmp_path.iterdir())
    make_small_set(labelled(), tmp_path)
    with pytest.raises(RunError, match="holds a set already"):
        make_small_set(labelled(), tmp_path)


def test_an_unknown_region_is_refused(tmp_path, untyped):
    with pytest.raises(UnknownNameError, match="region"):
        make_small_set(labelled(), tmp_path, region="left")


@pytest.fixture
def parquet(tmp_path):
    """Write a parquet file of pictures with these columns."""
    return lambda **columns: write_parquet(tmp_path / "photos.parquet", pictures(3), **columns)


def test_labelled_photographs_are_read(parquet):
    found = read_labelled(parquet(label=[1, 0, 1]), ["ant", "bee"], (8, 8), limit=2)
    assert [one.name for one in found] == ["bee", "ant"]
    assert found[0].photo.pixels.shape == (3, 8, 8)


def test_broken_labelled_photographs_are_listed_or_refused(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"bytes": data} for data in (*map(png_bytes, pictures(2)), b"broken")]
    parquet.write_table(pa.table({"image": rows, "label": [0, 1, 1]}), file := tmp_path / "photos.parquet")
    rejected = []
    assert [one.name for one in read_labelled(file, ["ant", "bee"], (8, 8), rejected=rejected)] == ["ant", "bee"]
    assert [one.name for one in rejected] == ["photos-00002"]
    with pytest.raises(ImageError, match="photos-00002"):
        read_labelled(file, ["ant", "bee"], (8, 8))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({}, "a column label"),
        ({"label": [0, 2, 0]}, "given 2"),
        ({"label": ["a", "b", "c"]}, "given a"),
        ({"label": [0, None, 1]}, "given None"),
    ],
)
def test_odd_labels_are_refused(parquet, columns, says):
    with pytest.raises(ImageError, match=says):
        read_labelled(parquet(**columns), ["ant", "bee"], (8, 8))
