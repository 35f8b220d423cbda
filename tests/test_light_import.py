"""`import unsample` is light, and works with and without run-time type checks."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "diffusers",
    "transformers",
    "matplotlib",
    "typer",
    "rich",
    "pydantic",
    "gradio",
    "torchmetrics",
    "scipy",
    "pyarrow",
    "accelerate",
)


def loaded(code):
    """Which heavy packages are loaded after `code`."""
    code += f"; import json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_import_loads_nothing_heavy():
    baseline = set(loaded("import torch, numpy, PIL.Image, safetensors.torch, jaxtyping"))
    assert set(loaded("import unsample")) <= baseline


def test_compare_is_loaded_when_asked_for():
    assert "pydantic" in loaded("import unsample; unsample.compare")


def test_diagnostics_load_no_model_and_no_torchmetrics():
    assert "torchmetrics" not in loaded("import unsample.diagnostics")
    assert "diffusers" not in loaded("import unsample.diagnostics")


def test_run_time_type_checks_are_on_in_these_tests(toy):
    """The import hook of conftest works: a wrong shape is refused by its annotation."""
    import jaxtyping
    import torch

    import unsample as us

    with pytest.raises(jaxtyping.TypeCheckError, match="images"):
        us.invert(toy(), torch.zeros(4, 4))
