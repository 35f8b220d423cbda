"""A dataset to its noise: the rows are those of `us.invert`, whoever makes them and however they are cut."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

import unsample as us
from unsample.dataset.shards import column_tensor
from unsample.errors import ArgumentError, ImageError, RunError
from unsample.pictures.read import decode_photo

from .conftest import COUNT, files_of, picture, write_parquet, write_tar


def table(place, folder="data"):
    return parquet.read_table(place / folder)


def latents(place):
    return torch.from_numpy(column_tensor(table(place)["latent"]).copy())


def pixels(pictures, model):
    return torch.stack([decode_photo(data, "p", model.image_size).pixels for data in pictures])


@pytest.mark.parametrize("method", ["auto", "edict", "edit-friendly"])
def test_rows_are_those_of_invert(method, invert, source, pictures, model, tmp_path):
    """Reference: `us.invert` on all pictures at once, with the same ids, in the same batches."""
    status = invert(source, tmp_path, method=method, condition_column="label", psnr=True, seed=3)
    assert (status.rows, status.rejected, status.complete, len(status.lines)) == (COUNT, 0, True, 3)
    rows, images = table(tmp_path), pixels(pictures, model)
    ids = [f"train-{i:05d}" for i in range(COUNT)]
    assert rows["id"].to_pylist() == ids
    assert rows["condition"].to_pylist() == list(range(COUNT))
    given = {"steps": 2, "method": method, "start": "4%", "seed": 3, "items": ids, "condition": list(range(COUNT))}
    there = us.invert(model, images, batch_size=2, **given)
    assert torch.equal(latents(tmp_path), there.latent)
    assert rows["nfe"].to_pylist() == [there.nfe] * COUNT
    assert rows["start_ratio"].to_pylist() == [level.ratio for level in there.start_levels]
    back = us.sample(model, there, condition=list(range(COUNT)))
    expected = us.diagnostics.psnr(images, back.images.clamp(-1, 1))
    if method != "edit-friendly":  # which returns the picture but for rounding
        torch.testing.assert_close(torch.tensor(rows["psnr"].to_pylist()), expected.float(), rtol=1e-4, atol=1e-3)
    stored = {name.removeprefix("stored."): rows[name] for name in rows.schema.names if name.startswith("stored.")}
    assert stored.keys() == there.stored.tensors().keys()
    for name, tensor in there.stored.tensors().items():
        assert torch.equal(torch.from_numpy(column_tensor(stored[name]).copy()), tensor)


def test_guidance_towards_the_condition_of_each_row(invert, source, pictures, model, tmp_path):
    """Reference: `us.invert`."""
    invert(source, tmp_path, condition_column="label", guidance=2.0)
    ids = [f"train-{i:05d}" for i in range(COUNT)]
    given = {"steps": 2, "items": ids, "condition": list(range(COUNT)), "guidance": 2.0, "batch_size": 2}
    assert torch.equal(latents(tmp_path), us.invert(model, pixels(pictures, model), **given).latent)
    with pytest.raises(ArgumentError, match="needs a condition"):
        invert(source, tmp_path / "none", guidance=2.0)


def test_noise_depends_on_seed_and_id_alone(invert, source, pictures, tmp_path):
    """Sizes of shards, limits, sources and their order change nothing; another seed or id does."""
    invert(source, tmp_path / "a", id_column="key")
    expected = latents(tmp_path / "a")
    for name, settings in (("b", {"shard": 2}), ("c", {"shard": 100}), ("d", {"limit": 8})):
        invert(source, tmp_path / name, id_column="key", **settings)
        assert torch.equal(latents(tmp_path / name), expected[: settings.get("limit")])
    backwards = write_parquet(tmp_path / "back.parquet", pictures[::-1], key=[f"n/{i}" for i in range(COUNT)][::-1])
    invert(backwards, tmp_path / "e", id_column="key", batch_size=1)
    torch.testing.assert_close(latents(tmp_path / "e").flip(0), expected, rtol=0, atol=1e-4)
    for name, settings in (("f", {"seed": 1, "id_column": "key"}), ("g", {})):
        invert(source, tmp_path / name, **settings)
        assert not torch.allclose(latents(tmp_path / name), expected, atol=0.05)


def test_every_kind_of_source(invert, pictures, tmp_path):
    write_tar(tmp_path / "s.tar", pictures, cls=range(COUNT))
    (tmp_path / "folder").mkdir()
    for i, data in enumerate(pictures):
        (tmp_path / "folder" / f"{i:03d}.png").write_bytes(data)
    invert(tmp_path / "s.tar", tmp_path / "tar", condition_column="cls")
    invert(tmp_path / "folder", tmp_path / "f")
    assert table(tmp_path / "tar")["id"].to_pylist() == [f"s/{i:03d}" for i in range(COUNT)]
    assert table(tmp_path / "tar")["condition"].to_pylist() == list(range(COUNT))
    assert table(tmp_path / "f")["id"].to_pylist() == [f"{i:03d}.png" for i in range(COUNT)]


def test_an_address_for_a_place(invert, source, tmp_path):
    """Shards in memory are those on disk, one object each."""
    import fsspec

    memory = fsspec.filesystem("memory")
    invert(source, "memory://dataset-test/noise")
    invert(source, tmp_path)
    there = {name.removeprefix("/dataset-test/noise/"): memory.cat_file(name) for name in memory.find("/dataset-test/noise")}
    assert {name: data for name, data in there.items() if not name.startswith("done")} == files_of(tmp_path)
    again = us.dataset.status("memory://dataset-test/noise")
    assert (again.complete, again.rows) == (True, COUNT)
    assert str(us.dataset.diagnose("memory://dataset-test/noise")) == str(us.dataset.diagnose(tmp_path))


def test_broken_pictures_are_listed(invert, pictures, tmp_path):
    given = [*pictures[:3], b"", b"no picture", picture(3, size=4), *pictures[3:]]
    source = write_parquet(tmp_path / "a.parquet", given)
    status = invert(source, tmp_path / "out")
    assert (status.rows, status.rejected, status.complete) == (COUNT, 3, True)
    rejected = table(tmp_path / "out", "rejected").to_pylist()
    assert [row["id"] for row in rejected] == ["a-00003", "a-00004", "a-00005"]
    assert "not a picture" in rejected[1]["reason"]
    assert "smaller than the model's 8x8" in rejected[2]["reason"]
    assert "3 pictures left out" in str(status)
    with pytest.raises(ImageError, match="a-00003"):
        invert(source, tmp_path / "strict", strict=True)
    whole = write_parquet(tmp_path / "b.parquet", [b""] * 3)
    assert (invert(whole, tmp_path / "none").rows, (tmp_path / "none" / "README.md").exists()) == (0, False)


def test_latents_that_are_not_finite_are_listed(invert, source, model, tmp_path):
    """A network that fails on one picture leaves the other rows as they are."""

    def failing(x, t, condition):
        made = model.network(x, t, condition)
        return made.where((x[:, :, 0, 0].mean(1) < 0.5)[:, None, None, None], torch.nan)

    broken = replace(model, network=failing)
    plain = {"start": "0", "method": "ddim", "batch_size": 3}
    invert(source, tmp_path / "a", **plain)
    status = invert(source, tmp_path / "b", model=broken, psnr=True, **plain)
    rejected = table(tmp_path / "b", "rejected").to_pylist()
    assert 0 < status.rejected == len(rejected) < COUNT
    assert all("not finite" in row["reason"] for row in rejected)
    kept = table(tmp_path / "b")["id"].to_pylist()
    assert sorted([*kept, *(row["id"] for row in rejected)]) == table(tmp_path / "a")["id"].to_pylist()
    expected = latents(tmp_path / "a")[[int(name[-2:]) for name in kept]]
    torch.testing.assert_close(latents(tmp_path / "b"), expected, rtol=0, atol=1e-4)
    with pytest.raises(ImageError, match="not finite"):
        invert(source, tmp_path / "c", model=broken, strict=True, **plain)


def test_latents_too_large_for_half_precision_are_listed(invert, source, model, tmp_path):
    def huge(x, t, condition):
        return 1e6 * torch.ones_like(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of divergence
        status = invert(source, tmp_path, model=replace(model, network=huge), latents="float16", method="ddim")
    assert (status.rows, status.rejected) == (0, COUNT)


def test_half_precision_is_what_is_diagnosed(invert, source, tmp_path):
    invert(source, tmp_path, latents="float16")
    rows = table(tmp_path)
    assert pyarrow.types.is_float16(rows.schema.field("latent").type.value_type.value_type.value_type)
    from unsample.diagnostics import moments

    expected = moments(latents(tmp_path).double()).std
    found = us.dataset.diagnose(tmp_path)
    assert abs(found["KL to N(0, 1)"].value - us.diagnostics.kl_to_normal(latents(tmp_path).double())) < 1e-12
    assert expected > 0


def test_diagnose_is_that_of_all_at_once(invert, pictures, model, tmp_path):
    """Reference: `us.diagnose` on all latents and pictures; every value of every row."""
    source = write_parquet(tmp_path / "a.parquet", [picture(i % 12) for i in range(40)])
    invert(source, tmp_path / "out", shard=7, psnr=True)
    images = pixels([picture(i % 12) for i in range(40)], model)
    back = us.sample(model, latents(tmp_path / "out"), steps=2)
    whole = us.diagnose(latents(tmp_path / "out").double(), images=images, reconstruction=back.images.clamp(-1, 1))
    found = us.dataset.diagnose(tmp_path / "out")
    assert [row.name for row in found.rows] == [row.name for row in whole.rows]
    for row in whole.rows:
        rounding = 1e-4 if row.name in ("MAE", "MAE plain", "PSNR", "SSIM") else 1e-9  # those sampled again in other batches
        assert found[row.name].note == row.note
        np.testing.assert_allclose(found[row.name].value, row.value, rtol=rounding, atol=rounding, err_msg=row.name)
    assert found["top-20 patch correlation"].low is not None


def test_readers_of_others(invert, source, tmp_path):
    """pandas, DuckDB and Hugging Face's datasets open the shards as they are."""
    invert(source, tmp_path / "out", condition_column="label")
    expected = latents(tmp_path / "out").numpy()
    import duckdb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        import pandas

        files = str(tmp_path / "out" / "data" / "*.parquet")
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
        assert np.array_equal(loaded.with_format("numpy")[:]["latent"], expected)
        assert loaded[5]["condition"] == 5
        frame = pandas.read_parquet(tmp_path / "out" / "data")
        assert np.array_equal(np.array(frame.latent.map(lambda x: np.stack([np.stack(y) for y in x])).tolist()), expected)
        rows = duckdb.sql(f"select id, latent[2][1][8] from '{files}' order by id").fetchall()
    assert rows == [(f"train-{i:05d}", float(expected[i, 1, 0, 7])) for i in range(COUNT)]


def test_the_card_says_how(invert, source, tmp_path):
    invert(source, tmp_path, condition_column="label", limit=3)
    card = (tmp_path / "README.md").read_text()
    assert "data_files: data/*.parquet" in card
    assert "0 pictures left out." in card  # there is no rejected/
    for column in table(tmp_path).schema.names:
        assert f"| `{column}` |" in card
    settings = json.loads(card.split("```json")[1].split("```")[0])
    assert settings["settings"]["steps"] == 2


def test_what_does_not_fit_is_refused(invert, source, pictures, model, tmp_path):
    invert(source, tmp_path / "a", limit=4)
    other = write_parquet(tmp_path / "other.parquet", pictures[1:])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    for place, expected, given in (
        (source, "another --steps: 2 there, 3 asked for", {"steps": 3}),
        (source, "another --seed", {"seed": 1}),
        (source, "another --shard: 4 there, 5 asked for", {"shard": 5}),
        (source, "another --limit: 4 there, 5 asked for", {"limit": 5}),
        (source, "another --psnr", {"psnr": True}),
        (other, "another source", {}),
    ):
        with pytest.raises(RunError, match=expected):
            invert(place, tmp_path / "a", **{"limit": 4, **given})
    with pytest.raises(RunError, match="no dataset of unsample"):
        invert(source, tmp_path / "full")
    for expected, given in (
        ("expected one of local, torchrun, ray", {"engine": "spark"}),
        ("neither torchrun nor srun", {"engine": "torchrun"}),
        ("given a Model", {"engine": "ray"}),
        ("of --engine ray, not local", {"workers": 2}),
        ("expected shard as a whole number", {"shard": 0}),
        ("expected shard as a whole number", {"shard": True}),
        ("--latents: expected one of", {"latents": "int8"}),
        ("given both", {"label": "1", "condition_column": "label"}),
        ("expected a forward start", {"start": "x"}),
    ):
        with pytest.raises(ArgumentError, match=expected):
            invert(source, tmp_path / "new", **given)
    with pytest.raises(RunError, match="no dataset in"):
        us.dataset.status(tmp_path / "nothing")
    assert not (tmp_path / "new").exists()
    invert(source, tmp_path / "a", limit=4, batch_size=3)  # which is no part of what it is
