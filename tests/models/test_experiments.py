"""Experiments and comparisons on latent, text, class and flow models: from random weights, so that no claim means anything."""

import json

import pytest

from .test_dit import dit
from .test_flux import flux
from .test_stable_diffusion import stable_diffusion

MODELS = {
    "a prompt": (lambda: stable_diffusion(sample_size=16), "32x32"),
    "flow": (lambda: flux(guided=True), "32x32"),
    "classes": (dit, "16x16"),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_experiment_and_a_comparison(name, tmp_path, unsample, saved_photos):
    make, size = MODELS[name]
    make().save_pretrained(tmp_path / "model")
    loaded = ("--model", tmp_path / "model", "--device", "cpu")
    done = unsample("experiment", "run", "E1", "--size", "smoke", *loaded, "--image-size", size, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "out" / "E1" / "metrics.json").read_text())
    assert metrics["claims"]
    assert (tmp_path / "out" / "E1" / "report.html").is_file()
    options = ("--methods", "ddim,look-ahead", "--nfe", 4, "--start", "0,1", "--out", tmp_path / "compare")
    compared = unsample("compare", saved_photos, *options, *loaded, "--size", size, "--json")
    assert compared.code == 0, compared.err
    assert {way["method"] for way in json.loads(compared.out)["ways"]} >= {"ddim", "look-ahead"}


@pytest.fixture
def saved_photos():
    from unsample.pictures.read import demo_photos

    return demo_photos()[0].parent
