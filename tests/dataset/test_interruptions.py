"""Kills, full disks and damaged files: every row once, and the same bytes as if nothing had been."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest

import unsample as us
from unsample.dataset import jobs, tasks
from unsample.dataset.store import Store
from unsample.errors import RunError

from .conftest import COUNT, files_of

KILLS = {
    "before the write": "before('data/shard-000001.parquet')",
    "in the write": "within('data/shard-000001.parquet')",
    "before the rename": "renaming('shard-000001.parquet')",
    "between the files": "before('sums/shard-000001.safetensors')",
    "before the line": "before('done/shard-000001.json')",
    "after the line": "before('data/shard-000002.parquet')",
    "before the card": "before('README.md')",
}
"""When a process is killed -> how, in the words of PRELUDE."""

PRELUDE = """
import os, signal
from unsample.dataset import store as stores

def die(): os.kill(os.getpid(), signal.SIGKILL)

written, replaced = stores.Store.write, os.replace

def before(name):
    stores.Store.write = lambda self, each, data: die() if each == name else written(self, each, data)

def within(name):
    def half(self, each, data):
        if each == name:
            folder, file = os.path.split(self.path(each))
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, f".{file}.1.part"), "wb") as part:
                part.write(data[: len(data) // 2])
            die()
        return written(self, each, data)
    stores.Store.write = half

def renaming(name):
    os.replace = lambda a, b: die() if str(b).endswith(name) else replaced(a, b)
"""


def run(arguments, before="", **environment):
    """The command line in a process of its own."""
    code = f"{before}\nfrom unsample.cli import main; main()"
    pipes = {"capture_output": True, "text": True, "env": os.environ | {"OMP_NUM_THREADS": "1"} | environment}
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=False, **pipes)


def command(source, out, *more):
    """`unsample dataset invert`, with the settings of `again`."""
    model = ("--model", "tiny-imagenet-32-v", "--size", "8x8", "--device", "cpu")
    return ("dataset", "invert", source, "--out", out, *model, "--steps", 2, "--shard", 4, "--batch-size", 2, *more)


@pytest.fixture
def again(source, loading):
    """The same command, in this process."""
    return lambda out: tasks.invert("", source, out, loading=loading, steps=2, shard=4, batch_size=2)


@pytest.fixture(scope="module")
def undisturbed(source, loading, tmp_path_factory):
    """The files of a dataset that was made in one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    tasks.invert("", source, out, loading=loading, steps=2, shard=4, batch_size=2)
    return files_of(out)


@pytest.mark.parametrize("when", KILLS)
def test_kill(when, again, source, undisturbed, tmp_path):
    killed = run(command(source, tmp_path), f"{PRELUDE}\n{KILLS[when]}")
    assert killed.returncode == -9, killed.stderr
    before = us.dataset.status(tmp_path)
    assert len(before.lines) == {"after the line": 2, "before the card": 3}.get(when, 1)
    after = again(tmp_path)
    assert (after.rows, after.complete) == (COUNT, True)
    assert {name: data for name, data in files_of(tmp_path).items() if not name.endswith(".part")} == undisturbed


def test_ctrl_c(source, invert, tmp_path):
    """Shards that are done stay, threads end, and the same call goes on."""

    def interrupt(done, total):
        if done >= 6:
            raise KeyboardInterrupt

    invert(source, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        invert(source, tmp_path / "cut", on_images=interrupt)
    assert not us.dataset.status(tmp_path / "cut").complete
    assert invert(source, tmp_path / "cut").complete
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("folder", ["data", "sums", "done"])
def test_a_file_that_is_gone_or_cut_is_made_again(folder, source, invert, tmp_path):
    invert(source, tmp_path)
    before = files_of(tmp_path)
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])):
        damage(min((tmp_path / folder).iterdir()))
        assert us.dataset.status(tmp_path).missing == [0]
        assert invert(source, tmp_path).complete
        assert files_of(tmp_path) == before


def test_a_changed_file_is_noticed_when_it_is_read(source, invert, model, tmp_path):
    invert(source, tmp_path)
    for folder, use in (("sums", us.dataset.diagnose), ("data", partial(us.dataset.sample, model=model))):
        path = min((tmp_path / folder).iterdir())
        whole = path.read_bytes()
        path.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
        with pytest.raises(RunError, match="missing or damaged"):
            use(tmp_path)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["plan.json", "pieces.parquet"])
def test_a_damaged_plan_is_one_line(name, source, loading, invert, tmp_path):
    invert(source, tmp_path)
    whole = (tmp_path / name).read_bytes()
    for data in (b"", b"{}", whole[:-20], b"[" * 100_000):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RunError, match="damaged"):
            jobs.invert_job(str(tmp_path), loading, 2, False)


def test_a_full_disk_loses_nothing(source, invert, tmp_path, monkeypatch):
    def full(self, name, data):
        if name.startswith("data/shard-000002"):
            raise RunError(f"cannot write {name}: No space left on device; free some space or choose another --out")
        return written(self, name, data)

    written = Store.write
    monkeypatch.setattr(Store, "write", full)
    with pytest.raises(RunError, match="No space left"):
        invert(source, tmp_path)
    assert len(us.dataset.status(tmp_path).lines) == 2
    monkeypatch.undo()
    assert invert(source, tmp_path).complete


def test_a_place_that_cannot_be_written(source, invert, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        invert(source, tmp_path / "file" / "out")


def test_a_link_out_of_the_dataset_is_not_followed(source, invert, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="leads out"):
        invert(source, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_progress_is_that_of_what_was_missing(source, invert, tmp_path):
    """The rate of a call that goes on is that of its own work."""
    invert(source, tmp_path)
    min((tmp_path / "data").iterdir()).unlink()
    reports: list[tuple[int, int]] = []
    invert(source, tmp_path, on_images=lambda done, total: reports.append((done, total)))
    assert (reports[0], reports[-1]) == ((0, 4), (4, 4))
