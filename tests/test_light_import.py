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
    "pooch",
    "requests",
)


@pytest.fixture(scope="module")
def loaded():
    """Which heavy packages are loaded after each statement, all in one process: what is loaded stays loaded."""
    lines = ["import json, sys", "after = {}"]
    for statement in (
        "import torch, numpy, PIL.Image, safetensors.torch, jaxtyping",
        "import unsample",
        "import unsample.diagnostics",
        "unsample.compare",
    ):
        lines += [statement, f"after[{statement!r}] = [name for name in {HEAVY!r} if name in sys.modules]"]
    code = "\n".join([*lines, "print(json.dumps(after))"])
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {statement: set(names) for statement, names in json.loads(done.stdout).items()}


def test_import_loads_nothing_heavy(loaded):
    assert loaded["import unsample"] <= loaded["import torch, numpy, PIL.Image, safetensors.torch, jaxtyping"]


def test_diagnostics_load_nothing_heavy_either(loaded):
    assert loaded["import unsample.diagnostics"] == loaded["import unsample"]


def test_compare_is_loaded_when_it_is_used(loaded):
    assert "pydantic" in loaded["unsample.compare"] - loaded["import unsample"]


def test_run_time_type_checks_are_on_in_these_tests(toy):
    """The import hook of conftest works: a wrong shape is refused by its annotation."""
    import jaxtyping
    import torch

    import unsample as us

    with pytest.raises(jaxtyping.TypeCheckError, match="images"):
        us.invert(toy(), torch.zeros(4, 4))
