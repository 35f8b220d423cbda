"""What a machine can refuse while a command works, in processes of their own: one line, exit code 2, and nothing lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from unsample import cli
from unsample.pictures.read import demo_photos
from unsample.runs import invert as jobs

from .conftest import CTRL_C, start

PHOTO = demo_photos()[0]


def one_line_of(process):
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2, err
    *notes, line = err.strip().splitlines()
    assert len(notes) <= 1, err  # of its pictures
    assert line.startswith("unsample: "), err
    return line


def shell(text):
    command = f'"{sys.executable}" -c "from unsample.cli import main; main()" {text}'
    return subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", ["methods > /dev/full", "methods --json > /dev/full", "methods >&-", "methods --json >&-"])
def test_output_that_cannot_be_written(how):
    assert "space" in (line := one_line_of(shell(how))) or "standard output is closed" in line


def test_a_reader_that_ends_first_ends_the_command_silently():
    process = shell("methods --json | true")
    out, err = process.communicate(timeout=300)
    assert (out, err) == ("", "")


@pytest.mark.parametrize("size", [1_000, 30_000])
def test_a_limit_on_files_loses_nothing(size, tmp_path):
    """The same command without the limit goes on."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    arguments = ["invert", PHOTO, "--steps", 2, "--size", "8x8", "--out", tmp_path / "run"]
    assert "cannot write" in one_line_of(start(arguments, preexec_fn=limit))
    process = start(arguments)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "complete"


@pytest.mark.parametrize("files", [8, 16])
def test_too_few_open_files(tmp_path, files):
    """As few as leave Python itself to start; which library cannot be opened then depends on the machine."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # noqa: E731
    holding = "import os, sys; import unsample.cli; kept = [os.dup(0) for _ in range(1000) if _free()]"
    before = f"import os\ndef _free():\n    try: os.close(os.dup(0)); return True\n    except OSError: return False\n{holding}"
    process = start(["invert", PHOTO, "--steps", 2, "--out", tmp_path / "run"], before, preexec_fn=limit)
    one_line_of(process)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")]
)
def test_memory_that_ends_within_a_batch_keeps_the_others(unsample, tiny, tmp_path, monkeypatch, error):
    """The advice is a smaller batch, with which the same command goes on."""
    how = ("invert", *demo_photos()[:3], "--model", tiny, "--steps", 2, "--out", tmp_path / "run")
    real, calls = jobs.invert, []

    def ends(*given, **named):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return real(*given, **named)

    monkeypatch.setattr(jobs, "invert", ends)
    done = unsample(*how, "--batch-size", 2)
    assert done.code == 2
    line = done.err.strip().splitlines()[-1]
    assert "out of memory" in line
    assert "--batch-size" in line
    assert unsample(*how, "--batch-size", 1).code == 0
    assert len(calls) == 3


@pytest.mark.parametrize(("where", "said"), [("load", "nothing was written yet"), ("invert", "what was finished is kept")])
def test_ctrl_c_says_whether_anything_was_written(unsample, tiny, tmp_path, monkeypatch, where, said):
    def interrupted(*_given, **_named):
        raise KeyboardInterrupt

    if where == "load":
        monkeypatch.setattr("unsample.cli.model_options.Chosen.load", interrupted)
    else:
        monkeypatch.setattr(jobs, "invert", interrupted)
    done = unsample("invert", PHOTO, "--model", tiny, "--steps", 2, "--out", tmp_path / "run")
    assert done.code == 130
    assert done.err.strip().splitlines()[-1].startswith(f"interrupted; {said}")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # another would interrupt PyTorch as it ends
    assert (tmp_path / "run").exists() == (where == "invert")


def test_other_errors_of_pytorch_are_not_hidden(unsample, tiny, tmp_path, monkeypatch):
    def fails(*given, **named):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(jobs, "invert", fails)
    with pytest.raises(RuntimeError, match="of ours"):
        cli.main(["invert", str(PHOTO), "--model", str(tiny), "--steps", "2", "--out", str(tmp_path / "run")])


WAITS_WHILE_PYTORCH_LOADS = """
import signal, sys

class Wait:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("waiting", flush=True)
            signal.pause()

sys.meta_path.insert(0, Wait())
"""


@pytest.mark.parametrize("how", [("-c", "from unsample_command import main; main()"), ("-m", "unsample")])
def test_ctrl_c_while_libraries_load_is_silent(how, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(f"{CTRL_C}\n{WAITS_WHILE_PYTORCH_LOADS}")
    paths = os.pathsep.join([str(tmp_path), *sys.path[1:]])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, *how, "methods"], env=os.environ | {"PYTHONPATH": paths}, **pipes)
    assert process.stdout.readline() == "waiting\n", process.communicate()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_the_command_is_the_one_that_is_installed():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"unsample": "unsample_command:main"}
    assert "src/unsample_command" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
