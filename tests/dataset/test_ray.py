"""Ray: kills of actors, nodes and drivers lose nothing, and what cannot work ends in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from itertools import count

import psutil
import pytest

import unsample as us
from unsample.dataset import actors, running, tasks
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
        monkeypatch.setattr(running, "Ray", lambda job, *more: actors.Ray(change(job), *more, **(engine or {})))
        given = {"loading": loading, "steps": 2, "shard": 4, "batch_size": 2, "engine": "ray"}
        return tasks.invert("", own, out, **given, **settings)

    return call


def whole(place):
    """The files of a dataset without what a killed process left half-written."""
    return {name: data for name, data in files_of(place).items() if not name.endswith(".part")}


def test_an_engine():
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
    pictures = [picture(i % COUNT) for i in range(40)]
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


@pytest.mark.slow
def test_more_workers_than_there_is_room_for(cluster, by_ray, tmp_path):
    """Those without a place hold nothing up."""
    pictures = [picture(i % COUNT) for i in range(24)]
    status = by_ray(own=write_parquet(tmp_path / "more.parquet", pictures), workers=5)
    assert status.complete


@pytest.mark.slow
def test_the_driver_is_killed(source, undisturbed, tmp_path):  # noqa: F811
    """What it started ends with it, and the same command goes on."""
    dying = f"""
import os, signal, psutil
from unsample.dataset import actors
wait = actors._Pool.wait
def works(child): return child.name() == "raylet" or "_Actor" in " ".join(child.cmdline())
def first(self, *given):
    if lines := wait(self, *given):
        with open({str(tmp_path / "children")!r}, "w") as file:
            file.write(" ".join(str(child.pid) for child in psutil.Process().children(recursive=True) if works(child)))
        os.kill(os.getpid(), signal.SIGKILL)
    return lines
actors._Pool.wait = first
"""
    out = tmp_path / "out"
    arguments = command(source, out, "--engine", "ray", "--workers", 1, "--json")
    killed = run(arguments, dying)
    assert killed.returncode == -9, killed.stderr
    children = [int(pid) for pid in (tmp_path / "children").read_text().split()]
    assert len(children) == 2
    gone(children)  # Ray's agents end by themselves in a minute
    assert us.dataset.status(out).lines
    after = run(arguments)
    assert after.returncode == 0, after.stderr
    assert json.loads(after.stdout)["rows"] == COUNT
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


@pytest.mark.slow
def test_a_cluster_that_runs_already(cluster, source, undisturbed, tmp_path):  # noqa: F811
    """It is used, printed nothing of, and left running."""
    nodes = [node["Alive"] for node in ray.nodes()]
    done = run(command(source, tmp_path, "--engine", "ray", "--address", cluster.address, "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == COUNT
    assert whole(tmp_path) == undisturbed
    assert [node["Alive"] for node in ray.nodes()] == nodes


class Elsewhere:
    """A job of a worker that sees another disk; to be sent, as `Once`."""

    def __init__(self, place, job):
        self.place, self.job = place, job

    def __call__(self):
        import shutil

        out, *rest = self.job.args
        shutil.copytree(out, self.place)
        return self.job.func(str(self.place), *rest)


class Always(Once):
    def __call__(self):
        exec(self.code, {})
        return self.job()


FAULTS = {
    "no model there": (
        "from unsample.errors import ModelError; raise ModelError('no model x')",
        ModelError,
        r"no model x \(a worker on",
    ),
    "killed in loading": ("import os; os.kill(os.getpid(), 9)", RunError, "died 2 times in loading the model"),
    "killed at a shard": (f"{PRELUDE}\n{KILLS['before the line']}", RunError, "died 2 times at shards [0-9, ]*1"),
    "another error": ("raise MemoryError('all full')", MemoryError, "all full"),
}
"""What is wrong in each worker -> how, what is raised of it here, and what it says."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_workers(fault, cluster, by_ray, monkeypatch):
    """It is neither tried for ever nor waited for."""
    code, kind, words = FAULTS[fault]
    monkeypatch.setattr(actors, "TRIES", 2)
    with pytest.raises(kind, match=words):
        by_ray(partial(Always, "", code))


@pytest.mark.slow
def test_a_source_or_a_place_that_workers_do_not_share(cluster, by_ray, source, tmp_path):
    own = tmp_path / "own.parquet"
    own.write_bytes(source.read_bytes())
    with pytest.raises(RunError, match=r"own.parquet.*all workers read the same path \(a worker on"):
        by_ray(partial(Once, tmp_path / "flag", f"import os; os.remove({str(own)!r})"), own=own, workers=1)
    with pytest.raises(RunError, match="expected a place that all of them share"):
        by_ray(partial(Elsewhere, tmp_path / "elsewhere"), out=tmp_path / "other", workers=1)


@pytest.mark.slow
def test_strict(cluster, by_ray, pictures, tmp_path):
    own = write_parquet(tmp_path / "own.parquet", [*pictures, b"broken"])
    with pytest.raises(ImageError, match="a worker on"):
        by_ray(own=own, strict=True)
    status = by_ray(own=own)
    assert (status.rows, status.rejected, status.complete) == (COUNT, 1, True)


def test_no_machine_is_large_enough(cluster, by_ray):
    with pytest.raises(RunError, match="no machine of the Ray cluster has 100 CPU for a worker; 3 machines there"):
        by_ray(engine={"cpus": 100, "patience": 0})


def test_no_ray_and_no_cluster(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "no such place:1"):
        with pytest.raises(ArgumentError, match="--address: no Ray cluster at"):
            list(actors.Ray(lambda: None, address).run([0], print))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ArgumentError, match="pip install"):
        list(actors.Ray(lambda: None).run([0], print))


@pytest.mark.parametrize(("given", "known", "used"), [(None, None, "local"), (None, "auto", "auto"), ("auto", "a:1", "auto")])
def test_which_cluster(given, known, used, monkeypatch):
    """One that somebody started on this machine is not taken unasked."""
    asked = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda address, **_more: asked.append(address))
    monkeypatch.setattr(ray, "shutdown", lambda: asked.append("shut down"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if known is not None:
        monkeypatch.setenv("RAY_ADDRESS", known)
    with actors._cluster(given):
        pass
    assert asked == [used, "shut down"]


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [
        ([{"CPU": 4}], None, (1, 4, 0)),
        ([{"CPU": 4}], 2, (2, 2, 0)),
        ([{"CPU": 4}, {"CPU": 8}], None, (2, 4, 0)),
        ([{"CPU": 2}, {}], 5, (5, 1, 0)),
        ([{"CPU": 32, "GPU": 8}, {"CPU": 16, "GPU": 4}], None, (12, 1, 1)),
        ([{}], None, (1, 1, 0)),
    ],
)
def test_size_of_the_pool(machines, workers, expected):
    """An actor a GPU; without GPUs one a machine, with all of its threads."""

    class Nodes:
        @staticmethod
        def nodes():
            return [{"Alive": True, "Resources": each} for each in machines] + [{"Alive": False, "Resources": {"CPU": 1}}]

    count, needs = actors.Ray(lambda: None, workers=workers)._pool(Nodes)
    assert (count, needs["CPU"], needs["GPU"]) == expected
