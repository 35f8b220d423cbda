"""Parts for pipelines with random weights, small enough for a test: tokenizers and text encoders, autoencoders, schedulers.

They prove plumbing and parity, nothing about pictures.
"""

import functools
import sys
from types import SimpleNamespace
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

LENGTH = 16
"""Tokens of a prompt."""

PROMPTS = ("a cat", "two dogs")


def _byte_characters():
    """The 256 characters by which CLIP's tokenizer writes bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) for byte in plain] + [chr(256 + i) for i in range(len(others))]


@functools.cache
def clip_tokenizer():
    characters = _byte_characters()
    words = [*characters, *(c + "</w>" for c in characters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=LENGTH)


@functools.cache
def t5_tokenizer():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *((chr(c), -2.0) for c in range(33, 127))]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=LENGTH)


def clip_encoder(width=16, *, projection=None):
    """A CLIP text encoder; with a projection, one that also pools."""
    torch.manual_seed(1)
    config = CLIPTextConfig(
        vocab_size=len(clip_tokenizer()),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
        projection_dim=projection or width,
    )
    return (CLIPTextModel if projection is None else CLIPTextModelWithProjection)(config).eval()


def t5_encoder(width=16):
    torch.manual_seed(2)
    config = T5Config(vocab_size=len(t5_tokenizer()), d_model=width, d_ff=32, d_kv=8, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def autoencoder(channels=4, **config):
    """A KL autoencoder, two image pixels to a latent cell."""
    torch.manual_seed(3)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        **config,
    ).eval()


def ddim(**config):
    """Stable Diffusion's scheduler, or that with changes."""
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    return DDIMScheduler(**{**settings, "set_alpha_to_one": False, "steps_offset": 1, **config})


def cleaned(monkeypatch, pipeline, *, installed=True):
    """As if beautifulsoup4 and ftfy were installed and left text as it is, or were not; the other rules are the pipeline's."""
    module = sys.modules[type(pipeline).__module__]
    for name in ("is_bs4_available", "is_ftfy_available"):
        monkeypatch.setattr(f"diffusers.utils.{name}", lambda: installed)
        monkeypatch.setattr(module, name, lambda: installed)
    monkeypatch.setattr(module, "BeautifulSoup", lambda text, features: SimpleNamespace(text=text), raising=False)
    monkeypatch.setattr(module, "ftfy", SimpleNamespace(fix_text=str), raising=False)


def starting_from(noise, pipeline):
    """A context in which a pipeline that draws its latents itself starts from `noise`."""
    return patch.object(sys.modules[type(pipeline).__module__], "randn_tensor", lambda *args, **kwargs: noise)


def flow(**config):
    """The scheduler of flow models: a fixed shift of 3, or one that depends on the image's size, from 4 tokens to 64."""
    sizes = {"base_image_seq_len": 4, "max_image_seq_len": 64}
    return FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **sizes, **config})
