"""A small network inside a larger one."""

import dataclasses

import networks
import pytest
import torch
from conftest import UNET
from grow import grow, main
from recipe import RecipeError
from trainer import Trainer

GROWN = {
    **UNET,
    "sample_size": 16,
    "block_out_channels": [8, 8, 8],
    "down_block_types": ["DownBlock2D", *UNET["down_block_types"]],
    "up_block_types": [*UNET["up_block_types"], "UpBlock2D"],
}


@pytest.fixture
def small(recipe):
    torch.manual_seed(3)
    return networks.build(recipe)


@pytest.fixture
def larger(recipe):
    return dataclasses.replace(recipe, model=GROWN)


def test_every_block_of_the_small_network_works_as_it_did_a_level_further_in(small, larger):
    grown, x, told = grow(small, larger), torch.randn(2, 8, 8, 8), torch.randn(2, 32)
    inside = [*grown.down_blocks[1:], grown.mid_block]
    for old, new in zip([*small.down_blocks, small.mid_block], inside, strict=True):
        first, second = (block(x, told) for block in (old, new))
        if isinstance(first, tuple):
            first, second = first[0], second[0]
            x = first
        assert torch.equal(first, second)
    skips = tuple(torch.randn_like(x) for _ in range(2))
    assert torch.equal(small.up_blocks[0](x, skips, told), grown.up_blocks[0](x, skips, told))
    t, labels = torch.tensor([3, 900]), torch.tensor([1, 3])
    assert torch.equal(small.time_embedding(small.time_proj(t)), grown.time_embedding(grown.time_proj(t)))
    assert torch.equal(small.class_embedding(labels), grown.class_embedding(labels))


def test_the_outermost_level_begins_at_random_and_always_the_same(small, larger):
    first, second = grow(small, larger).state_dict(), grow(small, larger).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.count_nonzero(first["up_blocks.2.resnets.0.conv1.weight"])


def test_a_run_goes_on_from_it(small, larger, recipe, tmp_path, monkeypatch, capsys):
    networks.save_pipeline(tmp_path / "small", recipe, small, dict(small.named_parameters()))
    monkeypatch.setattr("grow.Recipe.load", lambda path: larger)
    monkeypatch.setattr("sys.argv", f"grow {tmp_path}/small recipe.toml {tmp_path}/grown".split())
    main()
    weights, grown = Trainer(larger, init=tmp_path / "grown").weights, dict(grow(small, larger).named_parameters())
    assert all(torch.equal(weights[name], grown[name]) for name in grown)
    monkeypatch.setattr("sys.argv", f"grow {tmp_path}/none recipe.toml {tmp_path}/grown".split())
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "cannot start from" in capsys.readouterr().out


@pytest.mark.parametrize("model", [UNET, {**GROWN, "block_out_channels": [8, 16, 16]}])
def test_a_recipe_of_another_shape_is_refused(small, larger, model):
    with pytest.raises(RecipeError, match="does not hold the small one"):
        grow(small, dataclasses.replace(larger, model=model))


def test_a_kind_that_is_not_known_is_refused_before_its_folder_is_read(tmp_path):
    with pytest.raises(RecipeError, match="UNet2DModel or DiTTransformer2DModel"):
        networks.read_network("UNet3DModel", tmp_path)
