"""Engines make the same files: one process, ranks of torchrun, actors of Ray."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import unsample as us
from unsample.dataset import tasks
from unsample.dataset.engines import Rank
from unsample.errors import ArgumentError

from .conftest import COUNT, files_of
from .test_interruptions import command, run, undisturbed  # noqa: F401


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")])
def test_ranks_share_shards(names, monkeypatch):
    """Every shard is one rank's, whoever started it."""
    shares = []
    for number in range(3):
        for name, value in zip(names, (number, 3, number), strict=True):
            monkeypatch.setenv(name, str(value))
        shares += Rank.here().share(range(10))
    assert sorted(shares) == list(range(10))
    for value in ("3", "x", "-1"):
        monkeypatch.setenv(names[0], value)
        with pytest.raises(ArgumentError):
            Rank.here()


def test_two_ranks_by_torchrun(source, undisturbed, tmp_path):  # noqa: F811
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unsample"]
    arguments = [*launch, *map(str, command(source, tmp_path, "--engine", "torchrun"))]
    done = subprocess.run(arguments, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path) == undisturbed


def test_a_rank_that_dies_leaves_its_shards_to_a_rerun(source, undisturbed, tmp_path):  # noqa: F811
    run(command(source, tmp_path, "--engine", "torchrun"), RANK="1", WORLD_SIZE="2")
    assert us.dataset.status(tmp_path).missing == [0, 2]
    assert run(command(source, tmp_path)).returncode == 0
    assert files_of(tmp_path) == undisturbed
