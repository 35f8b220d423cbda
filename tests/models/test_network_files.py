"""Networks read from their folders. Reference: `from_pretrained` of their libraries."""

import json
import threading

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import unsample as us
from unsample.models.network_files import read_network, without_weights

from . import tiny
from .test_dit import dit
from .test_flux import flux
from .test_stable_diffusion import QUICK, stable_diffusion
from .test_stable_diffusion_3 import stable_diffusion_3

PIXEL = {
    "block_out_channels": (8, 8),
    "norm_num_groups": 4,
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "time_embedding_type": "fourier",
}

PARTS = {
    "pixel U-Net": lambda: diffusers.UNet2DModel(8, **PIXEL),
    "U-Net": lambda: stable_diffusion().unet,
    "autoencoder": tiny.autoencoder,
    "DiT": lambda: dit().transformer,
    "FLUX": lambda: flux(guided=True).transformer,
    "Stable Diffusion 3": lambda: stable_diffusion_3().transformer,
    "CLIP": tiny.clip_encoder,
    "CLIP with a projection": lambda: tiny.clip_encoder(projection=8),
    "T5": tiny.t5_encoder,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", PARTS)
def test_what_is_read_is_what_its_library_reads(tmp_path, name, dtype):
    """Values and precisions of weights and of buffers, and which of them are shared."""
    network = PARTS[name]()
    network.save_pretrained(tmp_path)
    ours = read_network(type(network), tmp_path, "text_encoder" if name in ("CLIP", "T5") else "unet", dtype, None)
    theirs = type(network).from_pretrained(tmp_path, torch_dtype=dtype)
    for read, expected in ((ours.named_parameters, theirs.named_parameters), (ours.named_buffers, theirs.named_buffers)):
        found, wanted = dict(read(remove_duplicate=False)), dict(expected(remove_duplicate=False))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) and found[key].dtype == wanted[key].dtype for key in wanted)
    assert len(list(ours.parameters())) == len(list(theirs.parameters()))
    assert not any(module.training for module in ours.modules())
    assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("old", [{"text_model.": ""}, {"": "text_model."}], ids=["without prefix", "with prefix"])
def test_text_encoders_of_other_versions_of_transformers(tmp_path, old):
    network = tiny.clip_encoder()
    network.save_pretrained(tmp_path)
    ((before, after),) = old.items()
    file = tmp_path / "model.safetensors"
    renamed = {after + key.removeprefix(before): value for key, value in load_file(file).items()}
    save_file({**renamed, "visual_projection.weight": torch.zeros(2)}, file, metadata={"format": "pt"})
    ours = read_network(type(network), tmp_path, "text_encoder", torch.float32, None)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in ours.state_dict().items())


def test_attention_of_old_autoencoders(tmp_path):
    network = tiny.autoencoder()
    network.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(file)
    for new, old in names.items():
        weights = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for key, value in weights.items()}
    assert weights.keys() != load_file(file).keys()
    save_file(weights, file)
    ours = read_network(type(network), tmp_path, "vae", torch.float32, None)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in ours.state_dict().items())


# Threads


def test_other_threads_make_modules_as_ever_while_a_model_is_read(tmp_path):
    """They were on the meta device, in the model's precision, or without initial values; so were those of `inspect`."""
    stable_diffusion(**QUICK).save_pretrained(tmp_path)
    made, done = [], threading.Event()

    def make():
        while not done.is_set():
            layer = torch.nn.Linear(3, 3, bias=False)
            made.append((layer.weight.device.type, layer.weight.dtype, float(layer.weight.detach().abs().max()) < 1))

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(4):
            us.load(str(tmp_path), device="cpu", dtype="float16")
            us.models.inspect_model(str(tmp_path))
            us.models.load_classifier(device="cpu")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert len(made) > 100
    assert set(made) == {("cpu", torch.float32, True)}


def test_threads_that_read_models_leave_the_libraries_logs_as_they_were(tmp_path):
    stable_diffusion(**QUICK).save_pretrained(tmp_path)
    loggers = (diffusers.utils.logging, transformers.utils.logging)
    before = [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers]
    threads = [threading.Thread(target=us.load, args=(str(tmp_path),), kwargs={"device": "cpu"}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(logger.get_verbosity(), logger.is_progress_bar_enabled()) for logger in loggers] == before


def test_reading_draws_nothing(tmp_path):
    """The random numbers of the process are the user's."""
    tiny.clip_encoder().save_pretrained(tmp_path)
    state = torch.get_rng_state()
    read_network(transformers.CLIPTextModel, tmp_path, "text_encoder", torch.float32, None)
    assert torch.equal(torch.get_rng_state(), state)


# Files of weights


def old_names(folder):
    """Shards of a variant as they were named before 2024: name-1-of-2.fp16.safetensors, and an index.fp16.json."""
    index = next(folder.glob("*index*"))
    text = index.read_text()
    index.unlink()
    for file in folder.glob("*.fp16-*.safetensors"):
        old = file.name.replace(".fp16-", "-").replace(".safetensors", ".fp16.safetensors")
        text = text.replace(file.name, old)
        file.rename(folder / old)
    (folder / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(text)


@pytest.mark.parametrize("given", [None, "fp16"])
@pytest.mark.parametrize("names", ["old", "new"])
def test_shards_of_a_variant(tmp_path, names, given):
    pipeline = stable_diffusion(**QUICK)
    pipeline.save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    if names == "old":
        old_names(tmp_path / "unet")
        old_names(tmp_path / "vae")
    model = us.load(str(tmp_path), device="cpu", variant=given)
    assert model.digest == us.models.digest.digest_of(pipeline.text_encoder, pipeline.vae, pipeline.unet)


def test_a_shard_that_is_missing(tmp_path):
    stable_diffusion(**QUICK).save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted((tmp_path / "unet").glob("*.safetensors"))
    shards[0].unlink()
    with pytest.raises(us.ModelError, match=f"in {len(shards)} files, given {len(shards) - 1}"):
        us.load(str(tmp_path), device="cpu")


def test_a_variant_that_is_not_there(tmp_path):
    stable_diffusion(**QUICK).save_pretrained(tmp_path)
    with pytest.raises(us.ModelError, match="weights in safetensors of variant 'fp16'"):
        us.load(str(tmp_path), device="cpu", variant="fp16")


def test_configs_are_enough_to_inspect(tmp_path):
    network = tiny.autoencoder()
    network.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    empty = without_weights(type(network), tmp_path, "vae")
    assert all(weight.is_meta for weight in empty.parameters())
    assert [weight.shape for weight in empty.parameters()] == [weight.shape for weight in network.parameters()]


# Configs

ABSURD = [
    ("unet/config.json", {"layers_per_block": 10**5}),
    ("unet/config.json", {"layers_per_block": 2000, "transformer_layers_per_block": 2000}),
    ("unet/config.json", {"down_block_types": ["CrossAttnDownBlock2D"] * 10**5}),
    ("unet/config.json", {"norm_num_groups": -4}),
    ("unet/config.json", {"block_out_channels": [10**12]}),
    ("unet/config.json", {"sample_size": -8}),
    ("unet/config.json", {"cross_attention_dim": 10**400}),
    ("vae/config.json", {"scaling_factor": float("nan")}),
    ("vae/config.json", {"layers_per_block": 10**6}),
    ("text_encoder/config.json", {"num_hidden_layers": 10**5}),
    ("text_encoder/config.json", {"vocab_size": 10**12}),
    ("text_encoder/config.json", {"max_position_embeddings": 10**10}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": -1}),
    ("scheduler/scheduler_config.json", {"beta_end": float("nan")}),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pipeline's folder, and what changes a config of it for the time of a test."""
    folder = tmp_path_factory.mktemp("configs") / "model"
    stable_diffusion(**QUICK).save_pretrained(folder)
    return folder


@pytest.fixture
def changed(saved):
    texts = {}

    def change(name, text):
        texts.setdefault(saved / name, (saved / name).read_text())
        (saved / name).write_text(text if isinstance(text, str) else json.dumps({**json.loads(texts[saved / name]), **text}))
        return str(saved)

    yield change
    for file, text in texts.items():
        file.write_text(text)


def refused(path, match):
    for read in (lambda: us.load(path, device="cpu"), lambda: us.models.inspect_model(path)):
        with pytest.raises(us.ModelError, match=match) as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(("file", "changes"), ABSURD, ids=lambda value: str(value)[:60])
def test_configs_of_absurd_size_are_refused_at_once(changed, file, changes):
    path = changed(file, changes)
    match = r"config.json (says .*: expected|asks for more than|is missing or damaged .it holds NaN)"
    if file.startswith("text_encoder"):  # which `inspect` does not read
        with pytest.raises(us.ModelError, match=match):
            us.load(path, device="cpu")
    else:
        refused(path, match)


def test_positions_of_a_transformer(tmp_path):
    """Its table of positions is computed: 10^12 of them."""
    dit().save_pretrained(tmp_path)
    file = tmp_path / "transformer" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sample_size": 10**6}))
    refused(str(tmp_path), "sample_size = 1000000: expected 0 to 1024")


@pytest.mark.parametrize(
    "changes",
    [
        {"_attn_implementation": "owner/kernel"},
        {"attn_implementation": "kernels-community/flash-attn@main"},
        {"_attn_implementation": {"text_config": "owner/kernel"}},
        {"text_config": {"_attn_implementation": "flash_attention_2"}},
        {"_experts_implementation": "owner/kernel"},
    ],
    ids=str,
)
@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_attention_that_would_be_downloaded_as_code(changed, monkeypatch, part, changes):
    path = changed(f"{part}/config.json", changes)
    with pytest.raises(us.ModelError, match=r"_implementation = .*expected eager or sdpa"):
        us.load(path, device="cpu")


@pytest.mark.parametrize("value", ["eager", "sdpa", None])
def test_attention_of_torch(changed, value):
    assert us.load(changed("text_encoder/config.json", {"_attn_implementation": value}), device="cpu").name == "model"


DEEP = ("model_index.json", "unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json")


@pytest.mark.parametrize("file", [*DEEP, "scheduler/scheduler_config.json"])
def test_json_that_is_nested_deep(changed, file):
    path = changed(file, '{"a": ' + "[" * 10**5 + "]" * 10**5 + "}")
    with pytest.raises(us.ModelError, match=r"nested too deep|cannot load") as caught:
        us.load(path, device="cpu")
    assert "\n" not in str(caught.value)
