"""`unsample edit` and `unsample variations`: reference, `us.edit` and `us.variations` on the same pictures."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.pictures.edit_sheet import edit_sheet
from unsample.pictures.read import read_photos
from unsample.runs import edit as _edits

from .conftest import tensors

QUICK = ("--steps", 5, "--start", 1, "--batch-size", 2)


@pytest.fixture
def model(tiny):
    return us.load(str(tiny), device="cpu")


@pytest.fixture
def given(photos, tiny):
    return (*photos, "--model", tiny)


def known(photos, model):
    read = read_photos(photos, model.image_size)
    return torch.stack([photo.pixels for photo in read]), [photo.id for photo in read]


def test_edits_are_the_librarys_with_a_sheet_and_their_cost(unsample, given, photos, model, tmp_path):
    done = unsample(
        "edit", *given, *QUICK, "--from", "ant", "--to", "bee", "--to", "none", "--out", tmp_path / "run", "--json"
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["results"]["nfe"] == {"up": 5, "reconstruction": 5, "mask": 0, "edit": 10}
    images, ids = known(photos, model)
    settings = {"source": "ant", "steps": 5, "start": us.ForwardNoise(steps=1), "items": ids, "batch_size": 2}
    found = tensors(tmp_path / "run")
    for name, label in (("edit0.0", "bee"), ("edit1.0", None)):
        torch.testing.assert_close(found[name], us.edit(model, images, to=label, **settings).images)
    torch.testing.assert_close(found["reconstruction.0"], us.edit(model, images, to="ant", guidance=1, **settings).images)
    pictures = sorted(str(file.relative_to(tmp_path / "run")) for file in (tmp_path / "run").rglob("*.png"))
    assert [name.split("/")[:2] for name in pictures[:6]] == [["edits", "0-bee"]] * 3 + [["edits", "1-none"]] * 3
    assert pictures[6] == "overview.png"
    assert [name.split("/")[0] for name in pictures[7:]] == ["reconstructions"] * 3


def test_an_edit_names_what_it_left_and_how_well_it_inverted(unsample, given, photos, model, tmp_path):
    done = unsample("edit", *given, *QUICK, "--from", "ant", "--to", "bee", "--out", tmp_path / "run")
    (images, _), back = known(photos, model), tensors(tmp_path / "run")["reconstruction.0"].clamp(-1, 1)
    assert f"sampled back unchanged: PSNR {us.diagnostics.psnr(images, back).mean():.1f} dB on average" in done.out
    beside, sheet = done.out.splitlines()[-2:]
    assert beside == "beside overview.png: edits/, latents.safetensors, reconstructions/"
    assert sheet == str(tmp_path / "run" / "overview.png")


def test_seeds_and_strength_and_a_mask(unsample, given, photos, model, tmp_path):
    white = np.zeros((16, 16), np.uint8)
    white[:, :8] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    more = ("--strength", 0.6, "--mask", tmp_path / "mask.png", "--seeds", 2, "--seed", 3)
    done = unsample("edit", *given, *QUICK, *more, "--to", "bee", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "up 3, reconstruction 3, mask 0, edit 6" in done.out
    found, (images, _) = tensors(tmp_path / "run"), known(photos, model)
    assert torch.equal(found["edit0.3"][..., 4:], images[..., 4:])
    assert not torch.equal(found["edit0.3"], found["edit0.4"])
    assert found["mask0.3"].float().mean() == 0.5


@pytest.mark.parametrize("keep", ["latent", "states"])
def test_a_run_of_invert_is_edited_without_a_way_up(unsample, given, photos, model, tmp_path, keep):
    unsample("invert", *given, *QUICK, "--label", "ant", "--keep", keep, "--out", tmp_path / "there")
    more = ("--strength", 0.6, "--mask", "auto") if keep == "states" else ()
    done = unsample("edit", tmp_path / "there", "--to", "bee", *more, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "up 0," in done.out
    direct = unsample("edit", *given, *QUICK, "--from", "ant", "--to", "bee", *more, "--out", tmp_path / "other")
    assert direct.code == 0, direct.err
    for name in ("reconstruction.0", "edit0.0"):
        torch.testing.assert_close(tensors(tmp_path / "run")[name], tensors(tmp_path / "other")[name])


def test_an_interrupted_run_goes_on_and_a_complete_one_does_no_work(unsample, given, tmp_path, monkeypatch, interrupt):
    arguments = ("edit", *given, *QUICK, "--to", "bee", "--out")
    unsample(*arguments, tmp_path / "whole")
    calls = interrupt(_edits, "edit", 3)
    assert unsample(*arguments, tmp_path / "run").code == 130
    assert unsample(*arguments, tmp_path / "run").code == 0
    assert len(calls) == 5  # two of the first batch, the one that failed, two of the second
    assert torch.equal(tensors(tmp_path / "run")["edit0.0"], tensors(tmp_path / "whole")["edit0.0"])
    monkeypatch.setattr(_edits, "edit", None)
    assert unsample(*arguments, tmp_path / "run").code == 0
    other = unsample("edit", *given, *QUICK, "--to", "cow", "--out", tmp_path / "run")
    assert (other.code, "was made with other to" in other.err) == (2, True)


def test_variations_are_the_librarys(unsample, given, photos, model, tmp_path):
    arguments = ("variations", *given, "--steps", 5, "--start", 2, "--seeds", 3, "--label", "ant", "--out", tmp_path / "run")
    done = unsample(*arguments)
    assert done.code == 0, done.err
    assert "variation 2" in done.out
    images, ids = known(photos, model)
    settings = {"seeds": 3, "start": us.ForwardNoise(steps=2), "condition": "ant", "steps": 5, "items": ids}
    expected, found = us.variations(model, images, **settings), tensors(tmp_path / "run")
    torch.testing.assert_close(found["variations"], expected.images)
    torch.testing.assert_close(found["distances"], expected.distances)
    assert len(list((tmp_path / "run" / "variations").rglob("*.png"))) == 9
    draws = json.loads((tmp_path / "run" / "manifest.json").read_text())["results"]["draws"]
    for row, distances in zip(draws, expected.distances.tolist(), strict=True):
        assert row["nearest"] == [
            [seed, pytest.approx(far, abs=1e-4)] for far, seed in sorted(zip(distances, range(3), strict=True))
        ]
        seed, far = row["nearest"][0]
        assert f"{row['picture']}, nearest first: seed {seed} at {far:.3f}" in done.out
    assert unsample(*arguments).out == done.out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--to", "dog"), "class"),
        (("--to", "bee", "--to", "bee"), "different targets"),
        (("--to", "bee", "--mask", "nowhere.png"), "mask: no such picture"),
        (("--to", "bee", "--strength", 2), "--strength: expected a number from 0 to 1"),
        (("--to", "bee", "--strength", 0.2, "--start", 2), "the start is at timestep 200"),
        (("--to", "bee", "--seeds", 0), "--seeds"),
        ((), "--to"),
    ],
)
def test_mistakes_are_one_line(unsample, given, tmp_path, more, says):
    done = unsample("edit", *given, *QUICK, *more, "--out", tmp_path / "run")
    assert done.code == 2
    assert says in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("invert", "more", "says"),
    [
        ((), ("--steps", 5), "has its own --steps"),
        ((), ("--seeds", 2), "has its own seed"),
        ((), ("--strength", 0.5), "invert with --keep states"),
        ((), ("--start", 2), "has the starts 1, not 2"),
        (("--label", "ant", "--guidance", 2), (), "guidance 1"),
    ],
)
def test_what_a_run_cannot_give_is_refused(unsample, given, tmp_path, invert, more, says):
    unsample("invert", given[0], *given[-2:], *QUICK, *invert, "--out", tmp_path / "there")
    done = unsample("edit", tmp_path / "there", "--to", "bee", *more, "--out", tmp_path / "run")
    assert (done.code, says in done.err) == (2, True), done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("notes", [(), [["0.1", "0.2"]]])
@pytest.mark.parametrize("size", [(32, 32), (32, 64), (64, 32)])
def test_a_sheet_of_one_row_has_no_wide_margins(size, notes):
    """Black pictures: nothing but them, a title and a note."""
    columns = {"picture": -torch.ones(1, 3, *size), "bee\nseed 3": -torch.ones(1, 3, *size)}
    sheet = np.asarray(Image.open(io.BytesIO(edit_sheet(["photo.jpg"], columns, notes))).convert("L"))
    rows = "".join("x" if (row < 128).any() else " " for row in sheet)
    assert max(map(len, re.findall(" +", rows))) < 15
    dark = (sheet < 128).mean(1) > 0.7
    assert dark.sum() == pytest.approx(size[0] / size[1] * 1.25 * 110, rel=0.05)
