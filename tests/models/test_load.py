"""`load`: names, directories and hub names, and everything that can be wrong with them."""

import json
import re
import shutil
import socket

import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

import unsample as us
from unsample.models import cards, inspect_model
from unsample.models.digest import digest_of

from .test_dit import dit
from .test_stable_diffusion import stable_diffusion


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy of the tiny pipeline, to be damaged."""
    return shutil.copytree(tiny, tmp_path / "tiny")


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    """The directory of a tiny Stable Diffusion; read only."""
    directory = tmp_path_factory.mktemp("models") / "cats"
    stable_diffusion().save_pretrained(directory)
    return directory


@pytest.fixture
def text_copy(text_model, tmp_path):
    """A copy of it, to be tampered with."""
    return shutil.copytree(text_model, tmp_path / "cats")


def refused(path, says, **settings):
    """`load` refuses in one line."""
    with pytest.raises(us.ModelError, match=says) as caught:
        us.load(str(path), device="cpu", **settings)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def rewrite(path, **changes):
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


# What works


def test_a_directory(tiny):
    model = us.load(str(tiny), device="cpu")
    assert (model.name, model.shape, model.image_size, model.prediction) == ("tiny", (3, 8, 8), (8, 8), "epsilon")
    assert len(model.schedule) == 1000
    assert model.conditioner.names == ("ant", "bee", "cow")
    assert model.conditioner.null == 3
    x = us.draw_noise(model, 2)
    assert not torch.equal(us.sample(model, x, steps=2, condition="bee").images, us.sample(model, x, steps=2).images)


def test_the_digest_names_the_weights(tiny, copy):
    model = us.load(str(copy), device="cpu")
    assert model.digest == us.load(str(tiny), device="cpu").digest
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_out.bias"] = tensors["conv_out.bias"] + 1e-6
    save_file(tensors, file)
    assert us.load(str(copy), device="cpu").digest != model.digest


def test_settings_of_the_sampler_come_from_the_scheduler(copy):
    rewrite(
        copy / "scheduler" / "scheduler_config.json",
        timestep_spacing="trailing",
        steps_offset=1,
        set_alpha_to_one=False,
        prediction_type="v_prediction",
    )
    model = us.load(str(copy), device="cpu")
    assert (model.spacing, model.steps_offset, model.clean, model.prediction) == ("trailing", 1, "first", "v_prediction")


def test_classes_without_names_are_numbered_and_none_is_unconditional(copy):
    (copy / "classes.json").unlink()
    model = us.load(str(copy), device="cpu")
    assert model.conditioner == us.ClassConditioner(("0", "1", "2", "3"), None)
    with pytest.raises(us.ArgumentError, match="give a label"):
        us.sample(model, us.draw_noise(model, 1), steps=2)
    assert us.sample(model, us.draw_noise(model, 1), steps=2, condition=3).nfe == 2


@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", torch.bfloat16), ("float64", torch.float64)])
def test_dtype_is_the_networks_business(tiny, name, dtype):
    model = us.load(str(tiny), device="cpu", dtype=name)
    assert next(iter(model.network.unet.parameters())).dtype == dtype
    assert us.load(str(tiny), device="cpu", dtype=dtype).digest == model.digest
    assert us.sample(model, us.draw_noise(model, 1), steps=2).images.dtype == torch.float32


def test_cards_are_complete_and_bundled_weights_load():
    known = cards()
    assert "tiny-imagenet-32" in known
    for name, card in known.items():
        assert card.name == name
        assert all((card.family, card.size, card.parameters, card.conditions, card.licence, card.about))
    model = us.load(device="cpu")
    assert (model.name, model.shape) == ("tiny-imagenet-32-v", (3, 32, 32))
    assert len(model.conditioner.names) == 200
    assert us.sample(model, us.draw_noise(model, 1), steps=2, condition="goldfish").images.isfinite().all()


# What is refused


def test_unknown_name_with_a_suggestion():
    with pytest.raises(us.UnknownNameError, match="did you mean 'tiny-imagenet-32'"):
        us.load("tiny-imagenet32", device="cpu")


@pytest.mark.parametrize("name", ["/no/such/dir", "./here/nothing", "~/no-such-dir-of-mine", "a/b/c", ""])
def test_paths_that_are_not_there(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(us.UnsampleError, match=r"no such directory|not a diffusers pipeline|expected a path") as caught:
        us.load(name, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_file_instead_of_a_directory(copy):
    refused(copy / "model_index.json", "give the directory it is in")


@pytest.mark.parametrize("part", ["unet", "scheduler", "unet/config.json", "scheduler/scheduler_config.json"])
def test_missing_parts(copy, part):
    shutil.rmtree(copy / part) if (copy / part).is_dir() else (copy / part).unlink()
    refused(copy, "not a diffusers pipeline: expected .* in it|lacks|cannot load .*no file named|missing or damaged")


def test_missing_weights(copy):
    (copy / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    refused(copy, "cannot load")


def test_weights_of_another_network(copy):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    missing = {key: value for key, value in tensors.items() if key != "conv_out.weight"}
    save_file(missing, file)
    refused(copy, "cannot load .*conv_out.weight")
    save_file({**tensors, "conv_out.weight": torch.zeros(3, 4, 3, 3)}, file)
    refused(copy, "cannot load")
    save_file({**tensors, "surprise.weight": torch.zeros(3)}, file)
    refused(copy, "cannot load .*surprise.weight")


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"text"'])
def test_damaged_configs(copy, part, text):
    (copy / part).write_text(text)
    refused(copy, ".")


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_schedule": "sigmoid"},
        {"beta_start": "small"},
        {"beta_start": -1.0},
        {"num_train_timesteps": 0},
        {"trained_betas": [2.0]},
        {"prediction_type": "flow"},
        {"timestep_spacing": "karras"},
        {"steps_offset": "one"},
    ],
    ids=str,
)
def test_schedulers_we_do_not_know(copy, changes):
    rewrite(copy / "scheduler" / "scheduler_config.json", **changes)
    refused(copy, "scheduler")


def test_a_pixel_network_with_a_flow_matching_scheduler(tmp_path, save_tiny):
    save_tiny(tmp_path / "flow", kind="FlowMatchEulerDiscreteScheduler")
    assert us.load(str(tmp_path / "flow"), device="cpu").prediction == "flow"


def test_without_an_index_the_scheduler_is_the_one_that_its_config_names(tmp_path, save_tiny):
    """PNDMScheduler clips nothing; a DDIMScheduler of its config would clip by default, and its clipping be noted."""
    save_tiny(tmp_path / "bare", kind="PNDMScheduler")
    (tmp_path / "bare" / "model_index.json").unlink()
    model = us.load(str(tmp_path / "bare"), device="cpu")
    assert (model.notes, model.clean) == ((), "first")
    save_tiny(tmp_path / "flow", kind="FlowMatchEulerDiscreteScheduler")
    (tmp_path / "flow" / "model_index.json").unlink()
    assert us.load(str(tmp_path / "flow"), device="cpu").prediction == "flow"


def test_networks_with_other_channels(tmp_path, save_tiny):
    save_tiny(tmp_path / "odd", unet={"in_channels": 3, "out_channels": 4})
    refused(tmp_path / "odd", "maps 3 to 4 channels; expected 3, or 6 with a learned variance")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"names": ["a"]}',
        '{"names": ["a"], "null": "x"}',
        '{"names": ["a"], "null": 4}',
        '{"names": ["a"], "null": -1}',
        '{"names": ["a", "b", "c", "d", "e"], "null": null}',
        '{"names": 3, "null": null}',
    ],
)
def test_damaged_class_names(copy, text):
    (copy / "classes.json").write_text(text)
    refused(copy, "classes.json is damaged")


def test_devices_and_dtypes(tiny):
    with pytest.raises(us.UnknownNameError, match="did you mean 'float16'"):
        us.load(str(tiny), dtype="floot16")
    with pytest.raises(us.ArgumentError, match="expected a device like cpu"):
        us.load(str(tiny), device="toaster")
    for device in ("meta", torch.device("meta"), "mps", "xla", "hpu", "vulkan", "xpu", "privateuseone"):
        if device == "mps" and torch.backends.mps.is_available():
            continue
        with pytest.raises(
            us.ArgumentError, match=r"device '\w+' is not available.*use cpu|expected a device like cpu"
        ) as caught:
            us.load(str(tiny), device=device)
        assert "\n" not in str(caught.value)
    if not torch.cuda.is_available():
        with pytest.raises(us.ArgumentError, match="sees no CUDA device"):
            us.load(str(tiny), device="cuda")


def test_hub_names_offline(monkeypatch):
    """conftest sets HF_HUB_OFFLINE; a socket would fail the test."""

    def no_network(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    refused("somebody/a-model-that-is-not-cached", "cannot load 'somebody/a-model-that-is-not-cached'")


# Tampering


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"_class_name": null}', '{"_class_name": ["evil", "Pipeline"]}']
)
def test_a_damaged_index(text_copy, text):
    (text_copy / "model_index.json").write_text(text)
    refused(text_copy, "damaged")


@pytest.mark.parametrize(
    "name", ["EvilPipeline", "DiffusionPipeline", "StableDiffusionInpaintPipeline", "../StableDiffusionPipeline"]
)
def test_pipelines_we_do_not_know(text_copy, name):
    rewrite(text_copy / "model_index.json", _class_name=name)
    refused(text_copy, "no adapter for the pipeline class")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
@pytest.mark.parametrize("library", ["os", "builtins", "evil", "diffusers.pipelines", ""])
def test_code_of_other_libraries_is_never_run(text_copy, part, library):
    """Not even of one that lies beside the weights."""
    (text_copy / part / "evil.py").write_text("raise SystemExit('this ran')")
    (text_copy / "evil.py").write_text("raise SystemExit('this ran')")
    rewrite(text_copy / "model_index.json", **{part: [library, "system"]})
    refused(text_copy, f"takes {part} from '{library}': expected diffusers or transformers")


@pytest.mark.parametrize(
    ("part", "library", "name"),
    [
        ("unet", "diffusers", "NoSuchClass"),
        ("unet", "diffusers", "../../evil"),
        ("unet", "diffusers", "__class__"),
        ("unet", "diffusers", "DiffusionPipeline"),
        ("unet", "diffusers", "StableDiffusionPipeline"),
        ("vae", "diffusers", "DDIMScheduler"),
        ("vae", "diffusers", "AutoModel"),
        ("text_encoder", "transformers", "AutoModel"),
        ("text_encoder", "transformers", "pipeline"),
        ("text_encoder", "transformers", "CLIPTokenizer"),
        ("text_encoder", "diffusers", "UNet2DConditionModel"),
        ("tokenizer", "transformers", "AutoTokenizer"),
        ("tokenizer", "transformers", "CLIPTextModel"),
        ("scheduler", "diffusers", "UNet2DConditionModel"),
    ],
)
def test_classes_that_a_part_cannot_be(text_copy, part, library, name):
    """Those of whole pipelines and those that choose a class by themselves may run code that comes with a model."""
    rewrite(text_copy / "model_index.json", **{part: [library, name]})
    refused(text_copy, f"names {library}.{re.escape(name)} for {part}: expected a ")


@pytest.mark.parametrize(
    "entry", [..., None, [None, None], ["diffusers"], ["diffusers", "A", "B"], "diffusers", 3, {}], ids=str
)
@pytest.mark.parametrize("part", ["unet", "text_encoder", "scheduler"])
def test_parts_that_are_missing_from_the_index(text_copy, part, entry):
    rewrite(text_copy / "model_index.json", **{part: entry})
    refused(text_copy, f"lacks its part {part}")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_folders_that_are_missing(text_copy, part):
    shutil.rmtree(text_copy / part)
    refused(text_copy, f"lacks the folder {part}/")


def test_an_index_names_no_paths(text_copy):
    """Parts are read from the folders of their family's names; an entry of any other name is passed over."""
    rewrite(text_copy / "model_index.json", **{"../elsewhere": ["diffusers", "UNet2DModel"], "/etc/passwd": ["os", "system"]})
    assert us.load(str(text_copy), device="cpu").family == "Stable Diffusion"


@pytest.mark.parametrize("keep", [0, 5, 0.5, -1], ids=["empty", "5 bytes", "half", "last byte"])
@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_truncated_weights(text_copy, part, keep):
    (file,) = (text_copy / part).glob("*.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    refused(text_copy, f"cannot load .*{part}")


@pytest.mark.parametrize(
    ("part", "name"),
    [("text_encoder", "pytorch_model.bin"), *((part, "diffusion_pytorch_model.bin") for part in ("vae", "unet"))],
)
def test_pickled_weights_of_any_part_are_never_opened(text_copy, part, name, monkeypatch):
    """A pickle can run code; only safetensors are read."""
    (file,) = (text_copy / part).glob("*.safetensors")
    torch.save(load_file(file), file.with_name(name))
    file.unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    refused(text_copy, "safetensors")


def test_a_text_encoder_without_some_of_its_weights(text_copy):
    """They would be left at random."""
    file = text_copy / "text_encoder" / "model.safetensors"
    tensors = load_file(file)
    name = next(key for key in tensors if "layers.1.self_attn.q_proj.weight" in key)
    save_file({key: value for key, value in tensors.items() if key != name}, file, metadata={"format": "pt"})
    refused(text_copy, "do not fit its config.json at .*q_proj.weight")


def test_a_text_encoder_may_come_with_the_rest_of_its_model(text_copy):
    file = text_copy / "text_encoder" / "model.safetensors"
    save_file({**load_file(file), "lm_head.weight": torch.zeros(3, 3)}, file, metadata={"format": "pt"})
    assert us.load(str(text_copy), device="cpu").family == "Stable Diffusion"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/config.json", {"sample_size": []}),
        ("unet/config.json", {"in_channels": 9}),
        ("vae/config.json", {"scaling_factor": "large"}),
        ("vae/config.json", {"block_out_channels": {}}),
        ("text_encoder/config.json", {"hidden_size": 3}),
        ("scheduler/scheduler_config.json", {"beta_start": []}),
    ],
    ids=str,
)
def test_configs_that_make_no_sense(text_copy, file, changes):
    rewrite(text_copy / file, **changes)
    refused(text_copy, "cannot load|maps 9 to 4 channels")


def test_a_config_without_a_size(text_copy):
    rewrite(text_copy / "unet" / "config.json", sample_size=None)
    with pytest.raises(us.ArgumentError, match="states no sample_size: give the size of the images"):
        us.load(str(text_copy), device="cpu")
    assert us.load(str(text_copy), device="cpu", size=(16, 16)).shape == (4, 8, 8)


def test_settings_of_an_index_that_make_no_sense(tmp_path):
    dit().save_pretrained(tmp_path / "it")
    rewrite(tmp_path / "it" / "model_index.json", id2label=5)
    refused(tmp_path / "it", "expected the settings of a DiTPipeline")


def test_the_oldest_layout(tiny, tmp_path):
    """Weights and configs of a lone network beside its index, as google/ddpm-cifar10-32 has them."""
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in (*tiny.glob("*.json"), *(tiny / "unet").iterdir(), *(tiny / "scheduler").iterdir()):
        shutil.copy(file, flat)
    assert us.load(str(flat), device="cpu").digest == us.load(str(tiny), device="cpu").digest
    assert inspect_model(flat).shape == (3, 8, 8)
    (flat / "diffusion_pytorch_model.safetensors").rename(flat / "model.bin")
    refused(flat, "safetensors")


@pytest.mark.gpu
def test_auto_takes_the_gpu_and_agrees_with_the_cpu(tiny):
    gpu, cpu = us.load(str(tiny)), us.load(str(tiny), device="cpu")
    assert gpu.device.type == "cuda"
    noise = us.draw_noise(cpu, 2)
    torch.testing.assert_close(
        us.sample(gpu, noise, steps=5).images.cpu(), us.sample(cpu, noise, steps=5).images, rtol=1e-3, atol=1e-3
    )


def test_the_digest_of_a_loaded_model_is_that_of_the_file(tiny):
    network = UNet2DModel.from_pretrained(tiny, subfolder="unet")
    assert us.load(str(tiny), device="cpu").digest == digest_of(network)
