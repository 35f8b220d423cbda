"""FLUX dev and schnell: reference, diffusers' own pipeline with its flow-matching scheduler, from random weights."""

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

import unsample as us

from . import tiny
from .agreement import agrees, load, of_prompts


def flux(*, guided, scheduler=None, **transformer):
    """Dev, which takes guidance as an input, or schnell."""
    torch.manual_seed(0)
    network = FluxTransformer2DModel(
        **{
            "in_channels": 16,
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "pooled_projection_dim": 16,
            "guidance_embeds": guided,
            "axes_dims_rope": (2, 2, 4),
            **transformer,
        }
    ).eval()
    pipeline = FluxPipeline(
        scheduler=tiny.flow(**(scheduler or {})),
        vae=tiny.autoencoder(scaling_factor=0.36, shift_factor=0.12, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=tiny.clip_encoder(16),
        tokenizer=tiny.clip_tokenizer(),
        text_encoder_2=tiny.t5_encoder(24),
        tokenizer_2=tiny.t5_tokenizer(),
        transformer=network,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline, model, noise, prompts, guidance=1.0, **settings):
    """The pipeline's call: guidance is a number that dev's network takes; schnell's is away from an empty prompt."""
    noise = pipeline._pack_latents(noise, len(noise), *model.shape)
    if not pipeline.transformer.config.guidance_embeds:
        settings |= {"true_cfg_scale": guidance, "negative_prompt": [""] * len(prompts)}
    return of_prompts(pipeline, model, noise, prompts, guidance, **settings)


@pytest.mark.parametrize("scheduler", [{"shift": 3.0}, {"use_dynamic_shifting": True, "time_shift_type": "linear"}], ids=str)
def test_sample_is_the_pipelines_own_with_other_shifts(tmp_path, scheduler):
    """Reference: the pipeline's images, the shift a fixed one other than 1, or growing linearly with the number of patches."""
    pipeline = flux(guided=False, scheduler=scheduler)
    agrees(theirs, pipeline, load(pipeline, tmp_path, size=(16, 24)), tiny.PROMPTS)


def test_guidance_of_dev_costs_no_evaluation_and_moves_away_from_nothing(tmp_path):
    model = load(flux(guided=True), tmp_path, size=(8, 8))
    assert model.distilled
    images = torch.zeros((1, 3, 8, 8))
    found = us.reconstruct(model, images, steps=3, method=us.DDIM(), start=us.FromImage(), condition="a cat", guidance=3.5)
    assert (found.trajectory.nfe, found.nfe) == (3, 6)
    for away in ("a dog", {3: torch.zeros((1, 2))}):
        with pytest.raises(us.ArgumentError, match="leave out negative") as refusal:
            us.sample(model, found.trajectory.latent, steps=3, condition="a cat", guidance=3.5, negative=away)
        assert "\n" not in str(refusal.value)


def test_its_own_size(tmp_path):
    assert load(flux(guided=False), tmp_path).image_size == (256, 256)


def test_a_network_with_more_inputs_is_refused(tmp_path):
    with pytest.raises(us.ModelError, match="24 to 16 channels"):
        load(flux(guided=True, in_channels=24, out_channels=16), tmp_path)
