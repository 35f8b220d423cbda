"""Noise to pictures: those of `us.sample`."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import unsample as us
from unsample.dataset.shards import column_tensor
from unsample.errors import ArgumentError, RunError
from unsample.pictures.read import to_bytes

from .conftest import COUNT, files_of


def shown(place):
    """The pictures of a dataset, by id."""
    rows = parquet.read_table(place / "data").to_pylist()
    return {row["id"]: np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows}


@pytest.mark.parametrize("method", ["auto", "edict"])
def test_pictures_are_those_of_sample(method, invert, source, model, tmp_path):
    """Reference: `us.invert` and `us.sample`, with the same conditions and what the method stores."""
    invert(source, tmp_path / "noise", method=method, condition_column="label")
    status = us.dataset.sample(tmp_path / "noise", tmp_path / "out", model=model, batch_size=2)
    assert (status.rows, status.rejected, status.complete) == (COUNT, 0, True)
    table = parquet.read_table(tmp_path / "noise" / "data")
    latent = torch.from_numpy(column_tensor(table["latent"]).copy())
    stored = {
        name[7:]: torch.from_numpy(column_tensor(table[name]).copy()) for name in table.schema.names if "stored." in name
    }
    sampler = us.parse_method(method).sampler
    expected = us.sample(
        model,
        latent,
        steps=2,
        method=sampler,
        stored=us.Stored.of(stored),
        condition=list(range(COUNT)),
        batch_size=2,
    ).images
    for i, picture in enumerate(shown(tmp_path / "out").values()):
        assert np.array_equal(picture, to_bytes(expected[i]))


def test_other_conditions_and_steps(invert, source, model, tmp_path):
    invert(source, tmp_path, condition_column="label")
    seen = {}
    for name, given in (("own", {}), ("none", {"label": "none"}), ("seven", {"label": "7"}), ("more", {"steps": 3})):
        us.dataset.sample(tmp_path, tmp_path / name, model=model, batch_size=4, **given)
        seen[name] = shown(tmp_path / name)
    us.dataset.sample(tmp_path, tmp_path / "guided", model=model, guidance=2.0, negative="1")
    labels = parquet.read_table(tmp_path / "seven" / "data")["condition"].to_pylist()
    assert labels == ["7"] * COUNT
    ids = list(seen["own"])
    assert all(not np.array_equal(seen["own"][ids[3]], seen[name][ids[3]]) for name in ("none", "seven", "more"))
    assert np.array_equal(seen["own"][ids[7]], seen["seven"][ids[7]])


def test_the_same_call_goes_on(invert, source, model, tmp_path):
    invert(source, tmp_path / "noise")
    us.dataset.sample(tmp_path / "noise", model=model, batch_size=2)
    before = files_of(tmp_path / "noise" / "samples")
    next((tmp_path / "noise" / "samples" / "data").iterdir()).unlink()
    assert us.dataset.sample(tmp_path / "noise", model=model, batch_size=2).complete
    assert files_of(tmp_path / "noise" / "samples") == before


def test_datasets_shows_pictures(invert, source, model, tmp_path):
    invert(source, tmp_path, condition_column="label")
    us.dataset.sample(tmp_path, model=model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        files = str(tmp_path / "samples" / "data" / "*.parquet")
        rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert isinstance(rows[0]["image"], Image.Image)
        assert (rows[3]["condition"], rows[3]["nfe"]) == (3, 2)


def test_what_does_not_fit_is_refused(invert, source, model, tmp_path):
    with pytest.raises(RunError, match="no dataset in"):
        us.dataset.sample(tmp_path, model=model)

    def interrupt(done, total):
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(source, tmp_path / "cut", on_images=interrupt)
    with pytest.raises(RunError, match="is not complete"):
        us.dataset.sample(tmp_path / "cut", model=model)
    invert(source, tmp_path / "noise")
    us.dataset.sample(tmp_path / "noise", model=model)
    with pytest.raises(RunError, match="another --steps"):
        us.dataset.sample(tmp_path / "noise", model=model, steps=1)
    for use in (us.dataset.diagnose, lambda place: us.dataset.sample(place, model=model)):
        with pytest.raises(ArgumentError, match="holds pictures"):
            use(tmp_path / "noise" / "samples")
    with pytest.raises(RunError, match="other weights"):
        us.dataset.sample(tmp_path / "noise", tmp_path / "new", model=us.load("tiny-imagenet-32", device="cpu", size=(8, 8)))
