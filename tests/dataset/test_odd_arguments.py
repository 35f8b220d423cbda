"""Arguments that cannot be are one ArgumentError before any work; objects say what their names say."""

from __future__ import annotations

import math

import pytest

import unsample as us
from unsample.errors import ArgumentError

from .conftest import files_of

ODD = {
    "limit": (math.nan, 2.5, True, "3", 0, -1),
    "shard": (0, True, 1.5, 10**7),
    "out": (None, 5, "", "a\0b", "s3://"),
    "source": (None, 5, "", [5], [""]),
    "model": (None, 5),
    "psnr": ("yes", 1, None),
    "strict": ("no",),
    "image_column": (None, 5, ""),
    "id_column": (5, ""),
    "condition_column": (5, ""),
    "latents": ("int8", 16, None),
    "method": (None, 5, "dimm", us.DDIM),
    "start": (None, 1.5, "x", True),
    "steps": (0, None, 2.5, math.nan, 10**9),
    "seed": (10**30, 1.5, None),
    "guidance": (math.nan, "3", None),
    "batch_size": (0, None, 10**9),
    "label": (1.5, ""),
    "eval_at": ("middle",),
    "engine": ("spark", None),
    "dtype": (5, "int8"),
    "loading": ("cpu",),
    "workers": (0, 2.5),
    "on_images": (5, lambda: None),
}


@pytest.mark.parametrize("name", ODD)
def test_arguments_of_invert(name, source, model, tmp_path):
    for value in ODD[name]:
        given = {"model": "tiny-imagenet-32-v" if name == "dtype" else model, "source": source, "out": tmp_path / "new"}
        with pytest.raises(ArgumentError) as error:
            us.dataset.invert(**{**given, name: value})
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_arguments_of_the_others(tmp_path):
    for use in (us.dataset.status, us.dataset.diagnose, us.dataset.sample):
        for place in ("", None, 5, "a\0b"):
            with pytest.raises(ArgumentError):
                use(place)
    for seed in ("a", -1, 10**30, None, True):
        with pytest.raises(ArgumentError, match="expected seed"):
            us.dataset.diagnose(tmp_path, seed=seed)
    with pytest.raises(TypeError, match=r"invert\(\): .*'step'; did you mean 'steps'"):
        us.dataset.invert("a", "b", "c", step=3)
    with pytest.raises(ArgumentError, match="give steps"):
        us.dataset.invert("a", "b", "c", num_inference_steps=3)


def test_objects_are_their_names(source, invert, tmp_path):
    invert(source, tmp_path / "a", method="ddim:eval_at=source", start="1", limit=3)
    invert(source, tmp_path / "b", method=us.DDIM(eval_at="source"), start=us.ForwardNoise(steps=1), limit=3)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


def test_more_shards_than_a_dataset_has(source, model, tmp_path, monkeypatch):
    from unsample.dataset import running

    monkeypatch.setattr(running, "MOST", 5)
    with pytest.raises(ArgumentError, match="--shard: expected at least 3 pictures a shard of 11, given 2"):
        us.dataset.invert(model, source, tmp_path / "new", shard=2)


def test_workers_elsewhere_need_a_place_that_lasts(source, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for place in ("memory://x", f"simplecache::memory://{tmp_path}"):
        with pytest.raises(ArgumentError, match="a place that all workers share"):
            us.dataset.invert("tiny-imagenet-32-v", source, place, engine="torchrun")
