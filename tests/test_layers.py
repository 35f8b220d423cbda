"""Imports point down only: the contracts of pyproject.toml, run by import-linter."""

import sys
import tomllib
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]


def contracts():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def test_contracts_hold(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    failed = lint_imports(no_cache=True)
    out = capsys.readouterr().out
    assert not failed, out
    assert f"Contracts: {len(contracts())} kept, 0 broken." in out


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("core/transfer", "from ..runs import settings", "imports point down only"),
        ("diagnostics/__init__", "from ..core.schedule import Level", "imports point down only"),
        ("core/walk", "from ..uses.sample import sample", "imports point down only"),
        ("newcomer", "", "imports point down only"),
        ("uses/sample", "import diffusers", "only models imports diffusers and transformers"),
        ("core/rng", "import matplotlib", "only pictures imports matplotlib"),
        ("core/walk", "import typer", "only cli imports typer, only web a server"),
    ],
)
def test_contracts_break_when_they_should(module, line, contract, tmp_path, monkeypatch, capsys):
    """A copy of the package with one bad import is refused by the contract meant for it."""
    import shutil
    import subprocess

    package = shutil.copytree(
        ROOT / "src" / "unsample", tmp_path / "unsample", ignore=shutil.ignore_patterns("weights", "photos", "__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    file = package / f"{module}.py"
    file.write_text((file.read_text() if file.exists() else '"""New."""\n') + f"\n{line}\n")
    code = (
        "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"{contract} BROKEN" in done.stdout, done.stdout + done.stderr
