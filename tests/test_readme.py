"""The README's Python and shell run as printed."""

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
    exec(compile(block("python"), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "99 network evaluations" in printed
    assert "std plain" in printed


def test_shell_block(tmp_path, monkeypatch, capsys):
    """Each `unsample` line, in order, in an empty folder with two photographs; `make` lines are CI's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSAMPLE_MODELS", str(tmp_path / "models"))
    for name, photo in zip(("photo.jpg", "cat.jpg"), demo_photos(), strict=False):
        Path(name).write_bytes(photo.read_bytes())
    commands = [shlex.split(line, comments=True) for line in block("sh").splitlines()]
    assert [words[:2] for words in commands if words[0] == "make"] == [["make", "demo"], ["make", "test"]]
    for words in commands:
        if words[0] == "make":
            continue
        assert words[0] == "unsample"
        with pytest.raises(SystemExit) as stop:
            cli.main([*words[1:], *(["--count", "2"] if words[1] == "sample" else [])])
        assert not stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", README))))
def test_links_lead_somewhere(link):
    assert (Path(__file__).parent.parent / link).exists()
