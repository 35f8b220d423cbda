"""An interrupted run of any method goes on where it stopped and ends as if it had never been interrupted."""

import pytest
import torch

from unsample.methods.registry import METHODS
from unsample.pictures.read import Photo
from unsample.runs import invert as jobs
from unsample.runs.settings import InvertSettings


@pytest.mark.parametrize("name", METHODS)
def test_every_method_resumes_bit_by_bit(toy, tmp_path, monkeypatch, interrupt, name):
    """Reference: the same run without the interruption; the part that was finished is not made again."""
    pixels = torch.randn((2, 1, 4, 4), generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    photos = [Photo(f"{i}.png", f"{i}", x, (4, 4)) for i, x in enumerate(pixels)]
    model = toy()
    settings = InvertSettings.of(model, method=name, steps=4, batch_size=1, forward=("1",))
    monkeypatch.setattr(jobs, "write_report", lambda *given: None)
    whole, _ = jobs.invert_photos(model, photos, settings, tmp_path / "whole")
    made = interrupt(jobs, "invert", 2)
    with pytest.raises(KeyboardInterrupt):
        jobs.invert_photos(model, photos, settings, tmp_path / "halved")
    resumed, _ = jobs.invert_photos(model, photos, settings, tmp_path / "halved")
    assert len(made) == 3
    for key, tensor in whole.tensors().items():
        assert torch.equal(tensor, resumed.tensors()[key]), key
