"""Engines make the same files: one process, ranks of torchrun, actors of Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from textwrap import indent

import pytest

import unsample as us
from unsample.core.files import write_atomically
from unsample.dataset import tasks
from unsample.dataset.engines import Rank
from unsample.dataset.store import Store
from unsample.errors import ArgumentError, RunError

from .conftest import COUNT, files_of
from .test_interruptions import KILLS, PRELUDE, command, run, undisturbed  # noqa: F401


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")])
def test_ranks_share_shards(names, monkeypatch):
    """Every shard is one rank's, whoever started it."""
    shares = []
    for number in range(3):
        for name, value in zip(names, (number, 3, number), strict=True):
            monkeypatch.setenv(name, str(value))
        shares += Rank.here().share(range(10))
    assert sorted(shares) == list(range(10))
    for value, expected in (("3", f"{names[0]}=3, {names[1]}=3"), ("x", "whole numbers in"), ("-1", f"{names[0]}=-1")):
        monkeypatch.setenv(names[0], value)
        with pytest.raises(ArgumentError, match=expected):
            Rank.here()


def launched(launcher, source, out, *more, env=()):
    """The command by a launcher of processes."""
    arguments = [sys.executable, "-m", *launcher, *map(str, command(source, out, "--engine", "torchrun", *more))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | dict(env)
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
ACCELERATE += ("--mixed_precision", "no", "--dynamo_backend", "no")


@pytest.mark.parametrize("launcher", [TORCHRUN, pytest.param(ACCELERATE, marks=pytest.mark.slow)], ids=lambda each: each[0])
def test_two_ranks(launcher, source, undisturbed, tmp_path):  # noqa: F811
    """They make what one process makes, and one of them says so."""
    done = launched((*launcher, "-m", "unsample"), source, tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path) == undisturbed
    assert json.loads(done.stdout)["images"] == COUNT


@pytest.mark.slow
def test_torchrun_starts_a_killed_rank_again(source, undisturbed, tmp_path):  # noqa: F811
    """Its shards that are there are not made again."""
    script, out = tmp_path / "script.py", tmp_path / "out"
    once = "import os\ntry: os.close(os.open(FLAG, os.O_CREAT | os.O_EXCL))\nexcept FileExistsError: pass\nelse: "
    once = once.replace("FLAG", repr(str(tmp_path / "flag")))
    how = KILLS["before the rename"]
    script.write_text(f"{PRELUDE}\nif os.environ['RANK'] == '1':\n" + indent(f"{once}{how}", "    ") + MAIN)
    done = launched((*TORCHRUN, "--max-restarts", "1", str(script)), source, out)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "flag").exists()
    assert {name: data for name, data in files_of(out).items() if not name.endswith(".part")} == undisturbed


MAIN = "\nfrom unsample.cli import main\nmain()\n"


@pytest.mark.parametrize(
    "step", [name if name == "before the line" else pytest.param(name, marks=pytest.mark.slow) for name in list(KILLS)[:5]]
)
def test_a_rank_is_killed(step, source, loading, undisturbed, tmp_path, monkeypatch):  # noqa: F811
    """The other finishes its own; the same ranks finish the rest."""
    arguments = command(source, tmp_path, "--engine", "torchrun")
    assert run(arguments, f"{PRELUDE}\n{KILLS[step]}", RANK="1", WORLD_SIZE="2").returncode == -9
    assert us.dataset.status(tmp_path).missing == [0, 1, 2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, missing in (("0", [1]), ("1", [])):
        monkeypatch.setenv("RANK", rank)
        tasks.invert("", source, tmp_path, loading=loading, steps=2, shard=4, batch_size=2, engine="torchrun")
        assert us.dataset.status(tmp_path).missing == missing
    assert {name: data for name, data in files_of(tmp_path).items() if not name.endswith(".part")} == undisturbed


def test_two_processes_on_one_place(source, invert, tmp_path):
    """The second is refused, whatever it is asked for, and leaves all as it was; ranks work beside each other."""
    seen = []

    def meanwhile(done, total):
        if not seen:
            seen.append(done)
            for settings in ({}, {"steps": 3}, {"batch_size": 3}):
                with pytest.raises(RunError, match=r"another process works on .*: wait until it is done"):
                    invert(source, tmp_path / "out", **settings)

    assert invert(source, tmp_path / "out", on_images=meanwhile).complete
    assert seen
    invert(source, tmp_path / "alone")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "alone")
    store = Store(tmp_path / "out")
    with store.held(shared=True), store.held(shared=True), pytest.raises(RunError), store.held(shared=False):
        pass


def test_processes_of_many_machines_write_one_file(tmp_path, monkeypatch):
    """The numbers of processes may be the same in each container: nothing is written twice at once under one name."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    replaced = os.replace

    def other(part, path):
        monkeypatch.setattr(os, "replace", replaced)
        write_atomically(tmp_path / "plan.json", b"theirs")
        replaced(part, path)

    monkeypatch.setattr(os, "replace", other)
    write_atomically(tmp_path / "plan.json", b"ours")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"ours"]


def test_a_line_a_shard_and_progress_over_all_processes(source, invert, tmp_path, monkeypatch):
    """Where there is no terminal; of two processes, the second counts what the first has done meanwhile."""
    from unsample.runs.progress import show_progress

    lines, seen = [], []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with show_progress(lines.append):
        invert(source, tmp_path / "out", engine="torchrun", on_images=lambda done, total: seen.append((done, total)))
    assert [line.split(",")[0] for line in lines] == ["shard 1 is done"]
    assert lines[0].endswith("1 of 1 of process 2")
    assert (seen[0], seen[-1]) == ((0, COUNT), (4, COUNT))
    monkeypatch.setenv("RANK", "0")
    with show_progress(lines.append):
        invert(source, tmp_path / "out", engine="torchrun", on_images=lambda done, total: seen.append((done, total)))
    assert [line.split(",")[0] for line in lines] == [f"shard {number} is done" for number in (1, 0, 2)]
    assert seen[-1] == (COUNT - 4, COUNT - 4)


def test_a_source_behind_a_local_server(source, invert, tmp_path):
    """The same rows by http as from disk."""
    import http.server
    import threading

    pytest.importorskip("aiohttp", reason="aiohttp, by which fsspec opens http://, is not installed")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=source.parent)

        def log_message(self, *given):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        invert(f"http://127.0.0.1:{server.server_port}/{source.name}", tmp_path / "http", condition_column="label")
        server.shutdown()
    invert(source, tmp_path / "disk", condition_column="label")
    import pyarrow.parquet as parquet

    assert parquet.read_table(tmp_path / "http" / "data").equals(parquet.read_table(tmp_path / "disk" / "data"))
