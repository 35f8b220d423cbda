import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import unsample as us
from unsample.core.files import write_atomically
from unsample.core.stored import Stored
from unsample.methods.registry import METHODS


@pytest.fixture
def whole(toy):
    """A trajectory with everything kept."""
    x = torch.rand((3, 1, 4, 4), generator=torch.Generator().manual_seed(0)) - 0.5
    return us.invert(toy(), x, steps=10, start=us.ForwardNoise(steps=2), keep=us.Keep("all", every=3))


def test_keep_says_which_moves_are_kept(whole):
    assert sorted(whole.states) == [2, 3, 6, 9, 10]
    assert sorted(whole.eps) == [3, 6, 9, 10]
    assert torch.equal(whole.states[10], whole.latent)


@pytest.mark.parametrize(("what", "states", "eps"), [("latent", False, False), ("states", True, False), ("eps", False, True)])
def test_keep_says_what_is_kept(toy, what, states, eps):
    trajectory = us.invert(toy(), torch.zeros((1, 1, 4, 4)), steps=3, start=us.FromImage(), keep=us.Keep(what))
    assert sorted(trajectory.states) == ([0, 1, 2, 3] if states else [])
    assert sorted(trajectory.eps) == ([1, 2, 3] if eps else [])


def test_kept_eps_and_states_belong_together(toy):
    """Reference: eq. 2 from each kept state with the kept eps gives the next."""
    model = toy()
    kept = us.invert(model, torch.full((1, 1, 4, 4), 0.3), steps=8, start=us.ForwardNoise(steps=2), keep=us.Keep("all"))
    for step in model.grid(8).up(kept.start):
        moved = us.transfer(kept.states[step.src.index], kept.eps[step.dst.index], step)
        torch.testing.assert_close(moved, kept.states[step.dst.index])


def test_keep_refuses(untyped):
    with pytest.raises(us.UnknownNameError, match="unknown thing to keep 'state'"):
        us.Keep("state")
    with pytest.raises(us.ArgumentError, match="n of at least 1, given 0"):
        us.Keep("all", every=0)


def test_everything_kept_is_where_keep_says(toy):
    """The device `meta` stands for another than the walk's."""
    model, images = toy(), torch.zeros((2, 1, 4, 4))
    kept = us.invert(model, images, steps=3, method=METHODS["fixed-point"](), keep=us.Keep("all", device="meta"))
    for by_level in (kept.states, kept.eps, kept.residuals):
        assert {tensor.device.type for tensor in by_level.values()} == {"meta"}
    assert kept.latent.device.type == "cpu"


def test_corrections_that_only_some_items_have_are_zero_for_the_others():
    one = us.Trajectory(torch.zeros(1, 2), 0, 9, 9, stored=Stored(corrections={3: torch.ones(1, 2), 5: torch.ones(1, 2)}))
    two = us.Trajectory(torch.zeros(2, 2), 0, 9, 9, stored=Stored(corrections={5: torch.full((2, 2), 2.0)}))
    none = us.Trajectory(torch.zeros(1, 2), 0, 9, 9)
    found = us.Trajectory.cat([one, two, none]).stored.corrections
    assert {level: tensor[:, 0].tolist() for level, tensor in found.items()} == {3: [1, 0, 0, 0], 5: [1, 2, 2, 0]}
    assert Stored.cat([two.stored, one.stored]).corrections[3].tolist() == [[0, 0], [0, 0], [1, 1]]


def test_finite_names_the_items_that_diverged(whole):
    latent = whole.latent.clone()
    latent[1, 0, 0, 0] = float("inf")
    assert us.Trajectory(latent, 0, 10, 10).finite.tolist() == [True, False, True]
    assert whole.finite.all()


def test_save_takes_tensors_of_any_layout(whole, tmp_path):
    latent = whole.latent.mT.contiguous().mT
    assert not latent.is_contiguous()
    replace(whole, latent=latent).save(tmp_path / "t.safetensors")
    assert torch.equal(us.Trajectory.load(tmp_path / "t.safetensors").latent, whole.latent)


def test_save_and_load_give_back_everything(whole, tmp_path):
    kept = us.Trajectory(
        whole.latent.double(), 2, 10, 8, whole.states, whole.eps, {3: torch.ones(3)}, {"model": "toy", "n": [1, {"a": None}]}
    )
    kept.save(tmp_path / "new" / "t.safetensors")
    found = us.Trajectory.load(tmp_path / "new" / "t.safetensors")
    assert (found.start, found.index, found.nfe, found.meta) == (2, 10, 8, {"model": "toy", "n": [1, {"a": None}]})
    assert found.latent.dtype == torch.float64
    assert torch.equal(found.latent, kept.latent)
    for name in ("states", "eps", "residuals"):
        there, here = getattr(found, name), getattr(kept, name)
        assert sorted(there) == sorted(here)
        assert all(torch.equal(there[i], here[i]) for i in here)
    assert len(found) == 3
    assert os.listdir(tmp_path / "new") == ["t.safetensors"]


def damaged(whole, path, how):
    whole.save(path)
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "directory":
        path.unlink()
        path.mkdir()
    elif how == "no header":
        save_file({"latent": torch.ones(1)}, path)
    elif how == "no latent":
        save_file({"states.1": torch.ones(1)}, path, metadata={"unsample": '{"start": 0, "index": 1, "nfe": 1, "meta": {}}'})
    elif how == "foreign tensor":
        header = json.dumps({"start": 0, "index": 1, "nfe": 1, "meta": {}})
        save_file({"latent": torch.ones(1), "other.1": torch.ones(1)}, path, metadata={"unsample": header})
    elif how == "header is a list":
        save_file({"latent": torch.ones(1)}, path, metadata={"unsample": "[]"})
    elif how == "header lacks nfe":
        save_file({"latent": torch.ones(1)}, path, metadata={"unsample": '{"start": 0, "index": 1}'})
    else:
        changed = {
            "empty": b"",
            "one byte": data[:1],
            "half": data[: len(data) // 2],
            "last byte": data[:-1],
            "text": b"hello" * 9,
        }
        path.write_bytes(changed[how])


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "directory",
        "empty",
        "one byte",
        "half",
        "last byte",
        "text",
        "no header",
        "no latent",
        "foreign tensor",
        "header is a list",
        "header lacks nfe",
    ],
)
def test_damaged_files_are_refused_in_one_line(whole, tmp_path, how):
    path = tmp_path / "t.safetensors"
    damaged(whole, path, how)
    with pytest.raises(us.RunError, match="is not a trajectory written by unsample") as caught:
        us.Trajectory.load(path)
    assert "\n" not in str(caught.value)


def test_writing_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")

    def full(_fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(us.RunError, match="No space left on device; free some space"):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_writing_below_a_file_or_over_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x.bin", tmp_path / "folder"):
        with pytest.raises(us.RunError, match="cannot write"):
            write_atomically(path, b"x")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
