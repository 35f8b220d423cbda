"""What every test shares: shapes and types of `unsample` are checked at run time, one thread, no network, no plots."""

import json
import os
import signal
from dataclasses import dataclass

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import jaxtyping
import pytest
import torch
from hypothesis import settings

from . import typecheck

settings.register_profile("unsample", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("unsample")
jaxtyping.install_import_hook("unsample", f"{typecheck.__name__}.check")
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run tests that take more than about 20 seconds, too")


def pytest_collection_modifyitems(config, items):
    slow = pytest.mark.skip(reason="slow: run with --slow")
    gpu = pytest.mark.skip(reason="gpu: this PyTorch sees no CUDA device")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(gpu)


@pytest.fixture
def untyped():
    """Switch run-time type checks off, to see what a caller without a type checker sees."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture(scope="session")
def save_tiny():
    """A function that saves an untrained 8x8 pixel pipeline in diffusers layout, and returns its network and scheduler."""

    def save(directory, *, unet=None, scheduler=None, kind="DDIMScheduler"):
        import diffusers

        torch.manual_seed(0)
        network = diffusers.UNet2DModel(
            **{
                "sample_size": 8,
                "in_channels": 3,
                "out_channels": 3,
                "layers_per_block": 1,
                "block_out_channels": (8, 16),
                "norm_num_groups": 4,
                "down_block_types": ("DownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "UpBlock2D"),
                **(unet or {}),
            }
        ).eval()
        theirs = getattr(diffusers, kind)(**({"clip_sample": False} if kind.startswith("DD") else {}), **(scheduler or {}))
        diffusers.DDPMPipeline(network, theirs).save_pretrained(directory)
        return network, theirs

    return save


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, save_tiny):
    """The directory of an untrained class-conditional 8x8 pipeline; read only."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny(directory, unet={"num_class_embeds": 4})
    (directory / "classes.json").write_text('{"names": ["ant", "bee", "cow"], "null": 3}')
    return directory


@pytest.fixture(scope="session")
def toy():
    """A function that builds a quick class-conditional model: a mixture of three Gaussians in 1x4x4 pixels."""
    from unsample import Schedule
    from unsample.models.analytic import mixture

    def build():
        means = torch.randn((3, 16), generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 2
        return mixture(Schedule.from_betas(Schedule.linear_betas()), means, [0.02, 0.2, 0.5], shape=(1, 4, 4))

    return build


@pytest.fixture
def interrupt(monkeypatch):
    """A function that makes the n-th call of a module's function fail as Ctrl-C does; it returns the list of calls."""

    def patch(module, name, at):
        real, calls = getattr(module, name), []

        def counting(*given, **named):
            calls.append(1)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*given, **named)

        monkeypatch.setattr(module, name, counting)
        return calls

    return patch


@pytest.fixture
def rewrite():
    """A function that changes a run's manifest as an older version would have written it: in format 1, without a digest."""

    def change(place, edit):
        file = place / "manifest.json"
        manifest = json.loads(file.read_text())
        edit(manifest)
        del manifest["digest"]
        manifest["format"] = 1
        file.write_text(json.dumps(manifest))

    return change


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def unsample(capsys):
    """Call the command line in this process, which Ctrl-C can still end afterwards."""
    from unsample import cli

    kept = signal.getsignal(signal.SIGINT)

    def call(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    yield call
    signal.signal(signal.SIGINT, kept)
