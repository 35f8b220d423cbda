"""Datasets whose files were edited, damaged or replaced, with digests made anew: one line, or made again."""

from __future__ import annotations

import hashlib
import io
import json
import os

import pyarrow
import pytest
import torch
from pyarrow import parquet
from safetensors.torch import load, save

import unsample as us
from unsample.dataset import jobs
from unsample.dataset.plan import Plan
from unsample.dataset.status import Status, rejected_rows
from unsample.dataset.store import Store
from unsample.errors import RunError
from unsample.runs.manifest import own_digest

from .conftest import COUNT, picture, write_parquet


@pytest.fixture
def out(source, invert, tmp_path):
    invert(source, tmp_path / "out", condition_column="label")
    return tmp_path / "out"


def edit(path, change, *, digest=True):
    """Change a JSON file, with its digest made anew if it is to be one that fits."""
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain | ({"digest": own_digest(plain)} if digest else {})))


def replace_file(out, folder, data):
    """Another file of the first shard, and a line that fits it."""
    path = min((out / folder).iterdir())
    path.write_bytes(data)

    def change(line):
        line["digests"][folder] = hashlib.sha256(data).hexdigest()
        line["sizes"][folder] = len(data)

    edit(min((out / "done").iterdir()), change, digest=False)


@pytest.mark.parametrize(
    "changed",
    [
        *({"rows": 5}, {"rows": -1, "rejected": 5}, {"rejected": 1}, {"nfe": -1}, {"shard": 1}),
        *({"seconds": -1}, {"seconds": 1e300}, {"finished": "soon"}, {"finished": "2026-01-01"}),
    ],
)
def test_counts_that_cannot_be_are_no_line(changed, out):
    edit(min((out / "done").iterdir()), lambda line: line.update(changed), digest=False)
    status = us.dataset.status(out)
    assert (status.damaged, status.missing, status.rows) == ((0,), [0], COUNT - 4)
    assert status.to_dict()


def test_an_edited_plan_is_refused(out, invert, source):
    whole = (out / "plan.json").read_bytes()
    for change in ({"images": 10}, {"shard": 5}, {"seed": 1}, {"images": 10**15}, {"places": []}, {"digest": None}):
        for digest in (False, True) if change.keys() & {"images", "places"} and change != {"images": 10} else (False,):
            edit(out / "plan.json", lambda plan, change=change: plan.update(change), digest=digest)
            with pytest.raises(RunError, match=r"is damaged or was edited \(.*give the folder another name"):
                us.dataset.status(out)
        (out / "plan.json").write_bytes(whole)
    with pytest.raises(RunError, match="another --limit: 11 there, 5 asked for; a dataset cannot be changed: choose another"):
        invert(source, out, condition_column="label", limit=5)
    with pytest.raises(RunError, match="another --start"):
        invert(source, out, condition_column="label", start="0")


def test_a_list_of_files_elsewhere_is_refused(out, loading):
    table = parquet.read_table(out / "pieces.parquet")
    parquet.write_table(table.set_column(0, "path", pyarrow.array(["/etc/x.parquet"])), out / "pieces.parquet")
    with pytest.raises(RunError, match="not the list of files that the plan was made of"):
        jobs.invert_job(str(out), loading, 2, False)
    for columns in ({"path": ["a"]}, {**table.to_pydict(), "rows": ["many"]}, {**table.to_pydict(), "rows": [3]}):
        parquet.write_table(pyarrow.table(columns), out / "pieces.parquet")
        digest = hashlib.sha256((out / "pieces.parquet").read_bytes()).hexdigest()
        edit(out / "plan.json", lambda plan, digest=digest: plan.update(pieces=digest))
        with pytest.raises(RunError, match=r"pieces.parquet is .*damaged"):
            jobs.invert_job(str(out), loading, 2, False)


def test_pipes_and_folders_in_place_of_files(out, source, invert):
    """None is waited for; what can be made again is."""
    for folder in ("done", "sums", "data"):
        path = min((out / folder).iterdir())
        path.unlink()
        os.mkfifo(path)
        assert us.dataset.status(out).missing == [0]
        assert invert(source, out, condition_column="label").complete
    path.unlink()
    path.mkdir()
    with pytest.raises(RunError, match="cannot write"):
        invert(source, out, condition_column="label")
    for name in ("pieces.parquet", "plan.json"):
        (out / name).unlink()
        os.mkfifo(out / name)
        with pytest.raises(RunError, match="not a regular file"):
            Plan.read(Store(out)).read_source(Store(out))


def test_a_plan_of_very_many_shards_is_quick(out):
    """What is there is gone over, not all that could be."""
    (out / "done" / "shard-999999.json").write_text("{}")
    (out / "done" / "shard-x.json").write_text("{}")
    edit(out / "plan.json", lambda plan: plan.update(images=4 * 10**6))
    status = us.dataset.status(out)
    assert (len(status.lines), status.damaged) == (2, (2, 999999))  # the third had three of four


def changed_sums(out, **given):
    return {**load(min((out / "sums").iterdir()).read_bytes()), **given}


@pytest.mark.parametrize(
    "given",
    [
        {"shape": torch.tensor([4, 3, 8])},
        {"shape": torch.tensor([4, 10**6, 10**6, 10**6])},
        {"shape": torch.tensor([5, 3, 8, 8])},
        {"mean/0": torch.zeros(7, dtype=torch.float64)},
        {"mean/1": torch.zeros(2, dtype=torch.int64)},
        {"std/0": torch.full((5,), torch.nan, dtype=torch.float64)},
        {"other/0": torch.zeros(5, dtype=torch.float64)},
        {"windows/totals": torch.zeros(3, dtype=torch.float64)},
        {"coordinates/squares": torch.zeros((), dtype=torch.float64).new_full((), torch.inf)},
    ],
    ids=str,
)
def test_sums_that_are_not_ours(given, out):
    replace_file(out, "sums", save(changed_sums(out, **given)))
    with pytest.raises(RunError, match=r"sums .* are damaged"):
        us.dataset.diagnose(out)


def test_sums_without_some(out):
    for name in ("shape", "mean/1", "coordinates/count"):
        tensors = changed_sums(out)
        whole = save(tensors)
        del tensors[name]
        replace_file(out, "sums", save(tensors))
        with pytest.raises(RunError, match=r"sums .* are damaged"):
            us.dataset.diagnose(out)
        replace_file(out, "sums", whole)


def data_of(table):
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def test_rows_that_are_not_ours(out, model):
    table = parquet.read_table(min((out / "data").iterdir()))

    def column(name, values):
        return table.set_column(table.schema.get_field_index(name), name, pyarrow.array(values))

    for other in (
        table.slice(1),
        table.drop_columns(["latent"]),
        table.drop_columns(["id"]),
        table.drop_columns(["condition"]),
        column("id", [1, 2, 3, 4]),
        column("id", ["a", "b", "c", None]),
        column("latent", ["a"] * 4),
        column("latent", [0.5] * 4),
        column("latent", [[[[float("nan")] * 8] * 8] * 3] * 4),
        column("condition", [0.5] * 4),
    ):
        replace_file(out, "data", data_of(other))
        with pytest.raises(RunError, match=r"shard 0 .* is damaged \("):
            us.dataset.sample(out, model=model, batch_size=2)
    replace_file(out, "data", b"PAR1")
    with pytest.raises(RunError, match="cannot be read"):
        us.dataset.sample(out, model=model)


def test_lists_of_what_was_left_out_that_are_not_ours(invert, tmp_path):
    invert(write_parquet(tmp_path / "a.parquet", [picture(0), b""]), tmp_path / "out")
    store = Store(tmp_path / "out")
    for columns in ({"id": ["a"]}, {"id": [1], "reason": ["b"]}, {"id": ["a", "b"], "reason": ["c", "d"]}):
        replace_file(tmp_path / "out", "rejected", data_of(pyarrow.table(columns)))
        with pytest.raises(RunError, match="expected 1 rows with id and reason"):
            rejected_rows(store, Status.of(store, Plan.read(store)))
