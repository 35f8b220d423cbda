"""What experiments share: nothing is made twice, and what is interrupted goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import unsample as us
from unsample.runs import sample as jobs
from unsample.studies.experiments import Lab


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


def test_a_model_without_a_digest_is_refused(lab):
    with pytest.raises(us.ArgumentError, match="digest"):
        replace(lab, model=replace(lab.model, digest=""))
