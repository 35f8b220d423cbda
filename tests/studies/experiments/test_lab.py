"""What experiments share: nothing is made twice, and what is interrupted goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import unsample as us
from unsample.runs import sample as jobs
from unsample.studies.experiments import Lab
from unsample.studies.experiments.lab import labelled


def counted(lab: Lab) -> tuple[Lab, list[int]]:
    """The lab with a network that counts its calls."""
    calls: list[int] = []
    network = lab.model.network

    def counting(x, t, condition=None):
        calls.append(len(x))
        return network(x, t, condition)

    return replace(lab, model=replace(lab.model, network=counting)), calls


def test_what_was_made_is_read_back(lab):
    lab, calls = counted(lab)
    pictures = lab.generated(30, 3)
    first = lab.inverted(pictures, forward="1", steps=3)
    assert sum(calls) == 30 * (3 + 2 + 3)
    again = lab.inverted(lab.generated(30, 3), forward="1", steps=3)
    assert sum(calls) == 30 * (3 + 2 + 3)
    assert torch.equal(first.latent, again.latent)
    assert first.nfe_up == 2


def test_an_interrupted_stream_goes_on_where_it_stopped(lab):
    """The last batch is shorter, and every item is there."""
    pictures, seen = lab.generated(30, 2), []

    def square(rows: slice) -> dict[str, torch.Tensor]:
        seen.append(rows.start)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return {"squares": pictures.noise[rows].square().sum((1, 2, 3))}

    with pytest.raises(KeyboardInterrupt):
        lab.streamed("squares", pictures, square)
    found = lab.streamed("squares", pictures, square)["squares"]
    assert torch.allclose(found, pictures.noise.square().sum((1, 2, 3)))
    assert seen == [0, 24, 24]
    lab.streamed("squares", pictures, square)
    assert len(seen) == 3
    other = lab.streamed("squares", pictures, lambda rows: {"squares": torch.zeros(30)[rows]}, power=2)["squares"]
    assert float(other.sum()) == 0


def test_settings_pictures_seed_and_model_are_told_apart(lab, monkeypatch):
    few, many = lab.generated(4, 2), lab.generated(5, 2)
    assert few.key != many.key
    assert replace(lab, seed=1).generated(4, 2).key != few.key
    monkeypatch.setattr(jobs, "sample", None)  # a new image would need it
    assert lab.generated(4, 2).key == few.key
    with pytest.raises(TypeError):
        replace(lab, model=replace(lab.model, digest="another")).generated(4, 2)


def test_photographs_are_those_given_or_those_that_come_along(lab, tmp_path):
    us.pictures.read.save_png(torch.zeros(3, 16, 16), tmp_path / "grey.png")
    assert [photo.name for photo in replace(lab, data=(str(tmp_path / "grey.png"),)).photographs(3).photos] == ["grey.png"]
    assert len(lab.photographs(5)) == 5
    assert [pictures.name for pictures in lab.sets(3, 2)] == ["generated"]


def test_labels_stay_with_their_photographs_where_some_are_left_out(lab, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    us.pictures.read.save_png(torch.zeros(3, 16, 16), tmp_path / "grey.png")
    grey = (tmp_path / "grey.png").read_bytes()
    rows = {"image": [{"bytes": data} for data in (grey, b"broken", grey, None, grey)], "label": [0, 1, 2, 0, 1]}
    parquet.write_table(pa.table(rows), tmp_path / "a.parquet")
    model = replace(lab.model, conditioner=us.ClassConditioner(("ant", "bee", "cow"), None))
    lab = replace(lab, data=(str(tmp_path / "a.parquet"),), model=model)
    pictures, labels = labelled(lab, 3, 2)
    assert [photo.name for photo in pictures.photos] == ["a-00000", "a-00002", "a-00004"]
    assert labels == [0, 2, 1]
    assert sorted(lab.rejected) == ["a-00001", "a-00003"]
    with pytest.raises(us.ImageError, match="a-00001"):
        labelled(replace(lab, strict=True), 3, 2)


def test_a_model_without_a_digest_is_refused(lab):
    with pytest.raises(us.ArgumentError, match="digest"):
        replace(lab, model=replace(lab.model, digest=""))
