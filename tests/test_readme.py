"""The README's Python and shell run, with fewer pictures and steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from unsample import cli
from unsample.pictures.read import demo_photos

README = (Path(__file__).parent.parent / "README.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"no {language} block"
    return found.group(1)


def test_python_block(capsys):
    """On two photographs of the eight, which takes a third of the time."""
    code = block("python")
    assert "demo_photos()," in code
    exec(compile(code.replace("demo_photos(),", "demo_photos()[:2],"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "99 network evaluations" in printed
    assert "std plain" in printed


FEWER = {
    "invert": "--steps 4",
    "edit photo.jpg": "--steps 4",
    "variations": "--steps 4",
    "interpolate": "--steps 2 --frames 3",
    "sample": "--steps 4 --count 2",
    "compare": "--nfe 8",
    "dataset invert": "--steps 4",
}
"""Options added to commands, so that all lines together take seconds; those of runs take the steps of the run."""


def test_shell_block(tmp_path, monkeypatch, capsys):
    """Each `unsample` line, in order, in an empty folder with two photographs; `make` lines are CI's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSAMPLE_MODELS", str(tmp_path / "models"))
    for name, photo in zip(("photo.jpg", "cat.jpg"), demo_photos(), strict=False):
        Path(name).write_bytes(photo.read_bytes())
    lines = [line.split("#")[0].strip() for line in block("sh").splitlines()]
    assert [line for line in lines if not line.startswith("unsample ")] == ["make demo", "make test"]
    for line in lines[2:]:
        command = line.removeprefix("unsample ")
        fewer = "".join(f" {options}" for begin, options in FEWER.items() if command.startswith(begin))
        with pytest.raises(SystemExit) as stop:
            cli.main(shlex.split(command + fewer))
        assert not stop.value.code, (command, capsys.readouterr().err)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", README))))
def test_links_lead_somewhere(link):
    assert (Path(__file__).parent.parent / link).exists()
