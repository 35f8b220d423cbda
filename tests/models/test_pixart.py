"""PixArt-alpha and -Sigma: reference, diffusers' own pipelines with their DDIMScheduler, from random weights."""

from functools import partial

import pytest
import torch
from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel

import unsample as us
from unsample.models.families.prompts import UNCLEANED

from . import tiny
from .agreement import agrees, load, of_prompts

BOTH = (PixArtAlphaPipeline, PixArtSigmaPipeline)

UNTIDY = "A Cat (from http://example.com/cat)  "


def pixart(kind=PixArtAlphaPipeline, scheduler=None, **transformer):
    """As published: text of another width than the blocks, and a learned variance."""
    torch.manual_seed(0)
    network = PixArtTransformer2DModel(
        **{
            "sample_size": 8,
            "num_layers": 2,
            "num_attention_heads": 3,
            "attention_head_dim": 8,
            "cross_attention_dim": 24,
            "caption_channels": 16,
            **transformer,
        }
    ).eval()
    pipeline = kind(
        text_encoder=tiny.t5_encoder(),
        tokenizer=tiny.t5_tokenizer(),
        vae=tiny.autoencoder(),
        transformer=network,
        scheduler=scheduler or tiny.ddim(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


theirs = partial(of_prompts, use_resolution_binning=False)
"""The images of the pipeline's own call, of the model's size and no other."""


@pytest.mark.parametrize("size", [(16, 16), (24, 16)])
def test_a_network_that_takes_the_size(tmp_path, size):
    """Reference: `PixArtAlphaPipeline` of sample size 128, whose network takes height, width and their ratio."""
    pipeline = pixart(sample_size=128)
    model = load(pipeline, tmp_path, size=size)
    encoded = model.conditioner(["a cat", None], torch.device("cpu"))
    assert encoded["resolution"].tolist() == [[*size]] * 2
    assert encoded["aspect_ratio"].tolist() == [[size[0] / size[1]]] * 2
    agrees(theirs, pipeline, model, tiny.PROMPTS, 3.0)


@pytest.mark.parametrize("kind", BOTH)
def test_a_network_of_that_size_that_does_not_take_it(tmp_path, kind):
    """Reference: the pipelines, of sample size 128 without additional conditions, as Sigma is published."""
    pipeline = pixart(kind, sample_size=128, use_additional_conditions=False)
    model = load(pipeline, tmp_path, size=(16, 24))
    assert set(model.conditioner([None], torch.device("cpu"))) == {"tokens", "mask"}
    agrees(theirs, pipeline, model, tiny.PROMPTS, 3.0)


def test_a_network_without_a_learned_variance(tmp_path):
    """Reference: `PixArtAlphaPipeline`, its network with as many outputs as inputs."""
    pipeline = pixart(out_channels=4)
    agrees(theirs, pipeline, load(pipeline, tmp_path), tiny.PROMPTS, 3.0)


def test_the_mask_counts(tmp_path):
    """Reference: the transformer itself, with the padding cut off instead of masked."""
    model = load(pixart(), tmp_path)
    x, t = us.draw_noise(model, 1), torch.tensor([500])
    encoded = model.conditioner(["a cat"], torch.device("cpu"))
    length = int(encoded["mask"].sum())
    assert length < encoded["mask"].shape[1] == 120
    cut = model.network.transformer(x, encoded["tokens"][:, :length], t, added_cond_kwargs={}, return_dict=False)[0][:, :4]
    torch.testing.assert_close(model.network(x, t, encoded), cut, rtol=0, atol=1e-5)
    seen = model.network(x, t, {**encoded, "mask": torch.ones_like(encoded["mask"])})
    assert float((seen - cut).abs().max()) > 1e-3


@pytest.mark.parametrize(("kind", "length"), [(PixArtAlphaPipeline, 120), (PixArtSigmaPipeline, 300)])
def test_no_prompt_is_the_empty_one(tmp_path, kind, length):
    """Reference: the negative embeddings of the pipeline's own `encode_prompt`."""
    pipeline = pixart(kind)
    encoded = load(pipeline, tmp_path).conditioner([None], torch.device("cpu"))
    _, _, tokens, mask = pipeline.encode_prompt("a cat")
    assert tokens.shape[1] == length
    torch.testing.assert_close(encoded["tokens"], tokens, rtol=0, atol=1e-6)
    assert torch.equal(encoded["mask"], mask)


def test_what_its_scheduler_clips_is_noted(tmp_path, monkeypatch):
    """Beside prompts that cannot be cleaned."""
    pipeline = pixart(scheduler=tiny.ddim(thresholding=True))
    tiny.cleaned(monkeypatch, pipeline, installed=False)
    thresholding, uncleaned = load(pipeline, tmp_path).notes
    assert "thresholding is ignored" in thresholding
    assert uncleaned == UNCLEANED
