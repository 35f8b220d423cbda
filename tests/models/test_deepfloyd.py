"""DeepFloyd IF, stage I: reference, diffusers' own `IFPipeline` with its DDIMScheduler, from random weights."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, IFPipeline, UNet2DConditionModel

import unsample as us
from unsample.models.families.prompts import UNCLEANED

from . import tiny
from .agreement import STEPS, TOLERANCE, load

UNTIDY = "A Cat (from http://example.com/cat)  "


def stage_one(**unet):
    """Blocks, text and scheduler as those of the published one, with a learned variance."""
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        **{
            "sample_size": 8,
            "in_channels": 3,
            "out_channels": 6,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "cross_attention_dim": 32,  # a multiple of the 32 groups of its norm
            "encoder_hid_dim": 16,
            "cross_attention_norm": "group_norm",
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2,
            "attention_head_dim": 4,
            "norm_num_groups": 4,
            "resnet_time_scale_shift": "scale_shift",
            "act_fn": "gelu",
            **unet,
        }
    ).eval()
    pipeline = IFPipeline(
        text_encoder=tiny.t5_encoder(),
        tokenizer=tiny.t5_tokenizer(),
        unet=network,
        scheduler=DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline, model, noise, prompts, guidance, steps=STEPS):
    """Images in [-1, 1] of the pipeline's own call: by a DDIMScheduler made of its scheduler's config without what clips."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, thresholding=False, clip_sample=False)
    pipeline.scheduler.register_to_config(variance_type="fixed_small")  # with a learned one it would be given 6 channels
    height, width = model.image_size
    settings = {"height": height, "width": width, "num_inference_steps": steps, "guidance_scale": guidance}
    with tiny.starting_from(noise, pipeline):
        return pipeline(list(prompts), output_type="pt", **settings).images


def same_pixels(ours, theirs):
    """As they are: neither clamps them."""
    assert float(theirs.std()) > 1e-3, "a pipeline that gives flat images proves nothing"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


def test_what_its_scheduler_clips_is_noted_and_left_out(tmp_path):
    """Reference: the network itself, evaluated at a level where either kind of clipping would change what it says."""
    model = load(stage_one(), tmp_path)
    clipping, thresholding = (note for note in model.notes if "is ignored" in note)
    assert "clip_sample" in clipping
    assert "thresholding" in thresholding
    level, x = model.grid(STEPS)[STEPS], 3 * us.draw_noise(model, 1)
    eps = model.denoiser(["a cat"])(x, level)
    assert float(((x - level.sigma * eps) / level.alpha).abs().max()) > 1.5
    raw = model.network.unet(x, level.t, model.conditioner(["a cat"], x.device), return_dict=False)[0]
    assert raw.shape == (1, 6, 8, 8)
    torch.testing.assert_close(eps, raw[:, :3], rtol=1e-5, atol=1e-6)


def test_prompts_that_cannot_be_cleaned_are_noted(tmp_path, monkeypatch):
    """As in the pipeline, they are then stripped and lowered only."""
    pipeline = stage_one()
    tiny.cleaned(monkeypatch, pipeline, installed=False)
    model = load(pipeline, tmp_path)
    assert UNCLEANED in model.notes
    assert torch.equal(model.embed([UNTIDY]), model.embed([UNTIDY.lower().strip()]))
    assert not torch.equal(model.embed([UNTIDY]), model.embed(["a cat from"]))


def test_a_super_resolution_stage_is_refused(tmp_path):
    """Its 6 channels in and 6 out, two images in and one with its variance out, would pass for a state of 6 channels."""
    with pytest.raises(us.ModelError, match="expected the 3 of stage I") as error:
        load(stage_one(in_channels=6, class_embed_type="timestep"), tmp_path)
    assert "\n" not in str(error.value)
