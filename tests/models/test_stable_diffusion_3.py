"""Stable Diffusion 3 and 3.5: reference, diffusers' own pipeline with its flow-matching scheduler, from random weights."""

import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

import unsample as us

from . import tiny
from .agreement import agrees, load, of_prompts

SIZES = [(16, 16), (16, 24)]


def stable_diffusion_3(scheduler=None, *, t5=True, **transformer):
    torch.manual_seed(0)
    network = SD3Transformer2DModel(
        **{
            "sample_size": 8,
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 2,
            "attention_head_dim": 8,
            "num_attention_heads": 2,
            "joint_attention_dim": 40,
            "caption_projection_dim": 16,
            "pooled_projection_dim": 40,
            "pos_embed_max_size": 8,
            **transformer,
        }
    ).eval()
    pipeline = StableDiffusion3Pipeline(
        transformer=network,
        scheduler=scheduler or tiny.flow(),
        vae=tiny.autoencoder(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=tiny.clip_encoder(16, projection=16),
        tokenizer=tiny.clip_tokenizer(),
        text_encoder_2=tiny.clip_encoder(24, projection=24),
        tokenizer_2=tiny.clip_tokenizer(),
        text_encoder_3=tiny.t5_encoder(40) if t5 else None,
        tokenizer_3=tiny.t5_tokenizer() if t5 else None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("kind", ["exponential", "linear"])
@pytest.mark.parametrize("size", SIZES)
def test_sample_is_the_pipelines_own_with_a_shift_by_size(tmp_path, kind, size):
    """Reference: the pipeline's images, the shift growing with the number of patches."""
    pipeline = stable_diffusion_3(tiny.flow(use_dynamic_shifting=True, time_shift_type=kind))
    agrees(of_prompts, pipeline, load(pipeline, tmp_path, size=size), tiny.PROMPTS, 3.0)


def test_sample_is_the_pipelines_own_with_3_5(tmp_path):
    """Reference: the pipeline's images from a transformer with 3.5's second attention and normalised queries and keys."""
    pipeline = stable_diffusion_3(dual_attention_layers=(0,), qk_norm="rms_norm")
    agrees(of_prompts, pipeline, load(pipeline, tmp_path), tiny.PROMPTS, 3.0)


def test_sample_is_the_pipelines_own_without_t5(tmp_path):
    """Reference: the images of a pipeline saved without its third text encoder."""
    pipeline = stable_diffusion_3(t5=False)
    agrees(of_prompts, pipeline, load(pipeline, tmp_path), tiny.PROMPTS, 3.0)
    with pytest.raises(us.ModelError, match="lacks its part text_encoder_2"):
        load(stable_diffusion_3().__class__(**{**pipeline.components, "text_encoder_2": None}), tmp_path / "less")


def test_a_size_beyond_its_position_embedding_is_refused(tmp_path):
    with pytest.raises(us.ArgumentError, match="up to 32"):
        load(stable_diffusion_3(), tmp_path, size=(16, 36))


def test_another_scheduler_is_refused(tmp_path):
    with pytest.raises(us.ModelError, match=r"cannot load .* FlowMatchHeunDiscreteScheduler"):
        load(stable_diffusion_3(FlowMatchHeunDiscreteScheduler(shift=3.0)), tmp_path)
