"""Run directories that version 0.1.0 wrote before the present layout of the code are read, used and resumed.

`old_run` is `unsample invert brushes.jpg cat.jpg --steps 4 --start 0,2 --size 16x16 --keep states` on the bundled model,
with its tensors and the states of its last start; `old_interrupted_run` is the same at 8x8 in batches of one, stopped after
three.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unsample.pictures.read import demo_photos
from unsample.runs import invert
from unsample.runs.directory import Run

HERE = Path(__file__).parent


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(HERE / "old_run", tmp_path / "old"))


def samples(place):
    return load_file(place / "latents.safetensors")


def test_it_is_diagnosed_as_it_was(unsample, old):
    """Reference: the diagnoses in its manifest."""
    done = unsample("diagnose", old, "--json")
    assert done.code == 0, done.err
    expected = json.loads((old / "manifest.json").read_text())["results"]["diagnoses"]
    found = json.loads(done.out)
    assert found.keys() == expected.keys()
    for name in expected:
        for ours, theirs in zip(found[name]["rows"], expected[name]["rows"], strict=True):
            assert ours["name"] == theirs["name"]
            value = theirs["value"]
            assert ours["value"] == (value if value is None else pytest.approx(value, rel=1e-4, abs=1e-6))


@pytest.mark.parametrize("start", ["0", "2"])
def test_its_pictures_are_sampled_back(unsample, old, tmp_path, start):
    """Reference: its own reconstructions."""
    done = unsample("reconstruct", old, "--start", start, "--out", tmp_path / "back")
    assert done.code == 0, done.err
    torch.testing.assert_close(
        samples(tmp_path / "back")["samples"], samples(old)[f"reconstruction.{start}"], rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("more", [(), ("--strength", 0.75, "--mask", "auto")])
def test_it_is_edited(unsample, old, tmp_path, more):
    """Reference: with all of the way, its own reconstructions."""
    done = unsample("edit", old, "--to", "goldfish", *more, "--out", tmp_path / "edited")
    assert done.code == 0, done.err
    assert "up 0," in done.out
    found = samples(tmp_path / "edited")
    assert not torch.equal(found["edit0.0"], found["reconstruction.0"])
    if not more:
        torch.testing.assert_close(found["reconstruction.0"], samples(old)["reconstruction.2"], rtol=1e-3, atol=1e-3)


def test_an_interrupted_one_goes_on(unsample, tmp_path, monkeypatch):
    """Reference: the same run from its beginning; the three parts that were finished are not made again."""
    old = Path(shutil.copytree(HERE / "old_interrupted_run", tmp_path / "old"))
    manifest = json.loads((old / "manifest.json").read_text())
    how = ("invert", *demo_photos()[:2], "--steps", 4, "--start", "0,2", "--size", "8x8", "--batch-size", 1, "--out")
    assert unsample(*how, tmp_path / "new").code == 0
    manifest["versions"] = Run.load(tmp_path / "new").manifest.versions  # it was another PyTorch, which is refused
    (old / "manifest.json").write_text(json.dumps(manifest))
    real, calls = invert.invert, []
    monkeypatch.setattr(invert, "invert", lambda *given, **named: calls.append(1) or real(*given, **named))
    done = unsample(*how, old)
    assert done.code == 0, done.err
    assert len(calls) == 1
    ours, theirs = samples(old), samples(tmp_path / "new")
    assert ours.keys() == {name for name in theirs if not name.startswith("timestep")}, "which old parts lack"
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("change", "code"), [((), 0), (("--eval-at", "source", "--method", "look-ahead"), 2)])
def test_a_setting_that_an_older_manifest_lacks_counts_as_its_default(unsample, tmp_path, rewrite, change, code):
    how = ("invert", demo_photos()[0], "--steps", 2, "--size", "8x8", "--out", tmp_path / "run")
    assert unsample(*how).code == 0
    settings = Run.load(tmp_path / "run").manifest.settings
    assert (settings["eval_at"], settings["keep"]) == (None, "latent")
    rewrite(tmp_path / "run", lambda manifest: [manifest["settings"].pop(name) for name in ("eval_at", "keep")])
    done = unsample(*how, *change)
    assert done.code == code, done.err
    assert unsample(*how, "--keep", "states").code == 2
