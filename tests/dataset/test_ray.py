"""Ray: kills of actors, nodes and drivers lose nothing, and what cannot work ends in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from functools import partial
from itertools import count

import psutil
import pytest

import unsample as us
from unsample.dataset import actors, tasks
from unsample.dataset.engines import Engine
from unsample.errors import ArgumentError, ImageError, ModelError, RunError

from .conftest import COUNT, files_of, picture, write_parquet
from .test_interruptions import KILLS, PRELUDE, command, run, undisturbed  # noqa: F401

ray = pytest.importorskip("ray", reason="ray is not installed")

QUICK = "before the rename"
STEPS = [name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in KILLS if name != "before the card"]


class Once:
    """A job whose first worker runs `code` before it is made; to be sent to workers, which know nothing of these tests."""

    def __init__(self, flag, code, job):
        self.flag, self.code, self.job = str(flag), code, job

    def __call__(self):
        import os

        try:
            os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return self.job()
        exec(self.code, {})
        return self.job()


@pytest.fixture(scope="module")
def cluster():
    """A Ray cluster of two nodes in this machine, each of one actor's size, beside a head without any."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        for name in ("RAY_DISABLE_METRICS_COLLECTION", "OMP_NUM_THREADS"):
            patch.setenv(name, "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_health_check_period_ms", "500")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.add_node(num_cpus=1)
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


@pytest.fixture
def by_ray(source, loading, tmp_path, monkeypatch):
    """`dataset.invert` by Ray, of which the job or what else the engine has is changed."""

    def call(change=lambda job: job, out=tmp_path / "out", own=source, engine=None, **settings):
        monkeypatch.setattr(tasks, "Ray", lambda job, *more: actors.Ray(change(job), *more, **(engine or {})))
        given = {"loading": loading, "steps": 2, "shard": 4, "batch_size": 2, "engine": "ray"}
        return tasks.invert("", own, out, **given, **settings)

    return call


def whole(place):
    """The files of a dataset without what a killed process left half-written."""
    return {name: data for name, data in files_of(place).items() if not name.endswith(".part")}


def test_an_engine(cluster):
    assert isinstance(actors.Ray(lambda: None), Engine)


@pytest.mark.parametrize("step", STEPS)
def test_an_actor_is_killed(step, cluster, by_ray, undisturbed, tmp_path):  # noqa: F811
    code = f"{PRELUDE}\n{KILLS[step]}"
    status = by_ray(partial(Once, tmp_path / "flag", code), workers=1)
    assert (tmp_path / "flag").exists()
    assert (status.rows, status.complete) == (COUNT, True)
    assert whole(tmp_path / "out") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("step", [name for name in KILLS if name != "before the card"])
def test_a_raylet_is_killed(step, cluster, by_ray, undisturbed, tmp_path):  # noqa: F811
    """The process of a node, at each step; what it had begun is done on the other node."""
    raylet = "def die(): os.kill(os.getppid(), signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)"
    alive = len([node for node in ray.nodes() if node["Alive"]])
    status = by_ray(partial(Once, tmp_path / "flag", f"{PRELUDE}\n{raylet}\n{KILLS[step]}"), workers=1)
    assert len([node for node in ray.nodes() if node["Alive"]]) == alive - 1
    cluster.add_node(num_cpus=1)
    assert (status.rows, status.complete) == (COUNT, True)
    assert whole(tmp_path / "out") == undisturbed


@pytest.mark.slow
def test_a_node_is_taken_away(cluster, by_ray, tmp_path):
    """While both work; each row is there once, by whomever."""
    node = cluster.add_node(num_cpus=1)
    pictures = [picture(i) for i in range(40)]
    own = write_parquet(tmp_path / "more.parquet", pictures)
    steps = count()

    def take_away(done, total):
        if next(steps) == 1:
            cluster.remove_node(node, allow_graceful=False)

    status = by_ray(own=own, workers=3, on_images=take_away)
    assert next(steps) > 2
    ids = [row for line in status.lines.values() for row in rows_of(tmp_path / "out", line.shard)]
    assert sorted(ids) == [f"more-{i:05d}" for i in range(40)]


def rows_of(place, number):
    from pyarrow import parquet

    return parquet.read_table(place / "data" / f"shard-{number:06d}.parquet").column("id").to_pylist()


def test_more_workers_than_there_is_room_for(cluster, by_ray, tmp_path):
    """Those without a place hold nothing up."""
    pictures = [picture(i) for i in range(24)]
    status = by_ray(own=write_parquet(tmp_path / "more.parquet", pictures), workers=5)
    assert status.complete


@pytest.mark.slow
def test_the_driver_is_killed(source, undisturbed, tmp_path):  # noqa: F811
    """What it started ends with it, and the same command goes on."""
    dying = f"""
import os, signal, psutil
from unsample.dataset import actors
wait = actors._Pool.wait
def first(self, *given):
    if lines := wait(self, *given):
        with open({str(tmp_path / "children")!r}, "w") as file:
            file.write(" ".join(str(child.pid) for child in psutil.Process().children(recursive=True)))
        os.kill(os.getpid(), signal.SIGKILL)
    return lines
actors._Pool.wait = first
"""
    out = tmp_path / "out"
    arguments = command(source, out, "--engine", "ray", "--workers", 1, "--json")
    killed = run(arguments, dying)
    assert killed.returncode == -9, killed.stderr
    children = [int(pid) for pid in (tmp_path / "children").read_text().split()]
    assert len(children) > 3
    gone(children)
    assert us.dataset.status(out).lines
    after = run(arguments)
    assert after.returncode == 0, after.stderr
    assert whole(out) == undisturbed


def gone(pids):
    """Wait until there are no such processes; those that have ended, and that nobody asked about, are none."""
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        time.sleep(0.2)


@pytest.mark.slow
def test_ctrl_c(source, undisturbed, tmp_path):  # noqa: F811
    """To the whole group, as a terminal sends it: one line, code 130, no process left, and the same command goes on."""
    code = """
from unsample.cli import main
from unsample.dataset import actors
import os, signal, psutil
wait = actors._Pool.wait
def first(self, *given):
    lines = wait(self, *given)
    if lines:
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        os.killpg(0, signal.SIGINT)
    return lines
actors._Pool.wait = first
main()
"""
    arguments = map(str, command(source, tmp_path, "--engine", "ray", "--workers", 1))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, start_new_session=True
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("interrupted; what was finished is kept")
    gone(map(int, done.stdout.split()))
    assert us.dataset.status(tmp_path).lines
    assert run(command(source, tmp_path)).returncode == 0
    assert whole(tmp_path) == undisturbed
