"""Snapshots of a training, loaded into the network they belong to."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import unsample as us
from unsample.studies.experiments.checkpoints import find_checkpoints, load_checkpoint


@pytest.fixture(scope="module")
def model(tiny):
    return us.load(str(tiny))


def halves(model, seed):
    """Other weights of the same network, in half precision."""
    generator = torch.Generator().manual_seed(seed)
    own = model.network.unet.state_dict()
    return {key: (0.1 * torch.randn(weight.shape, generator=generator)).half() for key, weight in own.items()}


def test_a_checkpoint_is_the_network_with_these_weights(model, tmp_path):
    """Reference: the weights put into a copy by hand."""
    weights = halves(model, 1)
    save_file(weights, tmp_path / "step-000010.safetensors")
    found = load_checkpoint(tmp_path / "step-000010.safetensors", model)
    import diffusers

    expected = diffusers.UNet2DModel.from_config(model.network.unet.config)
    expected.load_state_dict({key: weight.float() for key, weight in weights.items()})
    x, t, label = torch.randn(2, 3, 8, 8), torch.tensor([5, 5]), torch.tensor([3, 3])
    with torch.no_grad():
        torch.testing.assert_close(found.network(x, t, label), expected.eval()(x, t, class_labels=label).sample)
    assert found.network.unet.dtype == torch.float32
    assert not any(weight.requires_grad for weight in found.network.unet.parameters())
    assert found.digest not in ("", model.digest)
    assert (found.name, found.schedule, found.conditioner) == ("tiny-step-000010", model.schedule, model.conditioner)


def test_the_model_it_was_made_from_is_left_alone(model, tmp_path):
    before = {key: weight.clone() for key, weight in model.network.unet.state_dict().items()}
    save_file(halves(model, 2), tmp_path / "step-1.safetensors")
    load_checkpoint(tmp_path / "step-1.safetensors", model)
    assert all(torch.equal(before[key], weight) for key, weight in model.network.unet.state_dict().items())


def test_checkpoints_are_found_in_order_in_the_folder_or_its_snapshots(tmp_path):
    (tmp_path / "snapshots").mkdir()
    for step in (2000, 30, 400):
        (tmp_path / "snapshots" / f"step-{step:06d}.safetensors").touch()
    (tmp_path / "snapshots" / "step-000500.safetensors.part").touch()
    assert list(find_checkpoints(tmp_path)) == list(find_checkpoints(tmp_path / "snapshots")) == [30, 400, 2000]
    (tmp_path / "step-7.safetensors").touch()
    assert list(find_checkpoints(tmp_path)) == [7]
    (tmp_path / "step-07.safetensors").touch()
    with pytest.raises(us.errors.ModelError, match="two checkpoints"):
        find_checkpoints(tmp_path)


def test_a_folder_without_any_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(us.errors.ModelError, match="no checkpoints in"):
            find_checkpoints(folder)


def spoiled(weights, how):
    key = next(iter(weights))
    if how == "another network":
        return {**weights, key: torch.zeros(3)}
    if how == "a part missing":
        return {name: weight for name, weight in weights.items() if name != key}
    return {**weights, key: torch.full_like(weights[key], torch.nan)}


@pytest.mark.parametrize(
    ("how", "says"),
    [("another network", "does not fit"), ("a part missing", "does not fit"), ("not finite", "not finite")],
)
def test_weights_that_do_not_fit_are_one_line(model, tmp_path, how, says):
    save_file(spoiled(halves(model, 3), how), tmp_path / "step-1.safetensors")
    with pytest.raises(us.errors.ModelError, match=says) as error:
        load_checkpoint(tmp_path / "step-1.safetensors", model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"nothing like it", None])
def test_a_damaged_file_is_one_line(model, tmp_path, content):
    file = tmp_path / "step-1.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(us.errors.ModelError, match="missing or damaged"):
        load_checkpoint(file, model)


def test_a_model_that_is_no_network_is_refused(toy, tmp_path):
    with pytest.raises(us.errors.ModelError, match="a unet or transformer"):
        load_checkpoint(tmp_path / "step-1.safetensors", toy())
