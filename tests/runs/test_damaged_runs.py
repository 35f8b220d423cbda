"""Every way a run directory can be damaged: each command that reads it works, or says in one line what is wrong.

The run is of an analytic model in 3x4x4 pixels. Its manifest is changed with its digest left out, as one of an older version
would be, so that what is tested is what reads the values, not the digest alone.
"""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import unsample as us
from unsample import models
from unsample.models.analytic import mixture
from unsample.pictures.read import demo_photos
from unsample.runs import inversions
from unsample.runs import invert as jobs
from unsample.runs.directory import Run

ODD = (None, True, -1, 0, 2.5, 1e400, 10**30, "", "x", "\u2028\n", [], ["x"], [[]], {}, {"x": {"x": 1}}, "a" * 5000)

DEEP = "[" * 5000 + "]" * 5000


@pytest.fixture
def made(tmp_path, unsample, monkeypatch):
    """A run, and a function that gives the messages of those that fail of the commands that read it."""
    means = torch.randn((3, 48), generator=torch.Generator().manual_seed(3), dtype=torch.float64) / 2
    model = mixture(us.Schedule.from_betas(us.Schedule.linear_betas()), means, [0.02, 0.2, 0.5], shape=(3, 4, 4))
    monkeypatch.setattr(models, "load", lambda *given, **named: model)
    monkeypatch.setattr(jobs, "write_report", lambda *given: None)  # pictures take longer than all the rest
    monkeypatch.setattr("unsample.pictures.sheet", lambda *given, **named: b"")
    monkeypatch.setattr("unsample.runs.edit.edit_sheet", lambda *given, **named: b"")
    how = ("invert", *demo_photos()[:2], "--steps", 3, "--start", "1", "--method", "exact", "--keep", "states", "--out")
    done = unsample(*how, tmp_path / "run")
    assert done.code == 0, done.err
    shutil.copytree(tmp_path / "run", tmp_path / "safe")

    def readers():
        """Each command once on the run, which is put back as it was; the messages of those that failed."""
        damaged, said = tmp_path / "damaged", []
        shutil.rmtree(damaged, ignore_errors=True)
        (tmp_path / "run").rename(damaged)
        for command in (("diagnose", damaged), ("reconstruct", damaged), ("edit", damaged, "--to", "1"), (*how, damaged)):
            out = () if command[0] in ("diagnose", "invert") else ("--out", tmp_path / "out")
            done = unsample(*command, *out)
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            assert done.code in (0, 2), (command[0], done.err)
            if done.code:
                *notes, line = done.err.strip().splitlines()
                assert line.startswith("unsample: "), (command[0], done.err)
                assert len(notes) <= (command[0] == "invert"), (command[0], done.err)  # of its pictures
                said.append(line)
        shutil.copytree(tmp_path / "safe", tmp_path / "run")
        return said

    return tmp_path / "run", readers


def paths_of(value, path=()):
    """Every key of a nested manifest."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        if key not in ("diagnoses", "versions", "files"):
            yield from paths_of(child, (*path, key))


def test_every_value_of_the_manifest(made, rewrite):
    run, readers = made
    draw = random.Random(0)
    for path in list(paths_of(json.loads((run / "manifest.json").read_text())))[1:]:
        if path == ("digest",) or path[:2] == ("items", 1):
            continue
        for odd in (..., *draw.sample(ODD, 2)):

            def change(manifest, path=path, odd=odd):
                place = manifest
                for key in path[:-1]:
                    place = place[key]
                if odd is ...:
                    del place[path[-1]]
                else:
                    place[path[-1]] = odd

            rewrite(run, change)
            readers()


def test_a_manifest_deeper_than_any(made):
    run, readers = made
    text = (run / "manifest.json").read_text()
    (run / "manifest.json").write_text(text.replace('"results": {', f'"results": {{"x": {DEEP},', 1))
    assert len(readers()) == 4


CHANGES = {
    "dropped": lambda tensors, name: tensors.pop(name),
    "renamed": lambda tensors, name: tensors.update({f"other.{name}": tensors.pop(name)}),
    "flat": lambda tensors, name: tensors.update({name: tensors[name].reshape(1, -1)}),
    "more rows": lambda tensors, name: tensors.update({name: torch.cat([tensors[name]] * 2)}),
    "no rows": lambda tensors, name: tensors.update({name: tensors[name][:0]}),
    "wider": lambda tensors, name: tensors.update({name: torch.cat([tensors[name]] * 2, -1)}),
    "halves": lambda tensors, name: tensors.update({name: tensors[name].half()}),
    "bytes": lambda tensors, name: tensors.update({name: tensors[name].to(torch.uint8)}),
    "not numbers": lambda tensors, name: tensors.update({name: tensors[name].float() * torch.nan}),
}


def test_every_tensor(made, rewrite):
    """The header's own digest is gone with the change, as if there never had been one."""
    run, readers = made
    for name in load_file(run / "latents.safetensors"):
        for kind, change in CHANGES.items():
            file = run / "latents.safetensors"
            tensors = load_file(file)
            change(tensors, name)
            header = json.dumps({"items": [item.id for item in Run.load(run).manifest.items]})
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file, {"unsample": header})
            rewrite(run, lambda manifest: manifest.update(files=None))
            said = readers()
            assert said or kind in ("dropped", "renamed", "not numbers"), (name, kind)


@pytest.mark.parametrize("file", ["manifest.json", "latents.safetensors", "trajectories/1.000000.safetensors"])
def test_every_bit_flipped_is_noticed(made, file):
    """In what is read: nothing is printed that was not written. Flips inside of a run are repaired by `invert`, or refused."""
    run, readers = made
    whole = (run / file).read_bytes()
    draw = random.Random(0)
    for _ in range(8):
        at = draw.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        (run / file).write_bytes(bytes(flipped))
        said = readers()
        assert len(said) == {"manifest.json": 4, "latents.safetensors": 3}.get(file, 0), (at, said)
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        (run / file).write_bytes(whole[:size])
        readers()
    assert inversions.inverted_tensors(Run.load(run))
