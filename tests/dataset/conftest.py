"""Small sources of pictures, and a model of 8x8 pixels with the bundled weights."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

import unsample as us
from unsample.dataset import tasks
from unsample.runs.loading import Loading
from unsample.runs.manifest import Origin

COUNT = 11


def picture(i, size=10):
    """A PNG file: noise beside a plain area."""
    pixels = np.random.default_rng(i).integers(0, 256, (size, size, 3), dtype=np.uint8)
    pixels[: size // 2] = 20 * i
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path, pictures, **columns):
    """A parquet file in the Hugging Face layout, with row groups of three."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": data, "path": None} for data in pictures], kind)
    parquet.write_table(pyarrow.table({"image": images, **columns}), path, row_group_size=3)
    return path


def write_tar(path, pictures, **members):
    """A WebDataset shard: 000.png, 000.cls ..."""
    with tarfile.open(path, "w") as archive:
        for i, data in enumerate(pictures):
            for ending, own in {"png": data, **{name: str(values[i]).encode() for name, values in members.items()}}.items():
                entry = tarfile.TarInfo(f"{i:03d}.{ending}")
                entry.size = len(own)
                archive.addfile(entry, io.BytesIO(own))
    return path


@pytest.fixture(scope="session")
def pictures():
    return [picture(i) for i in range(COUNT)]


@pytest.fixture(scope="session")
def source(pictures, tmp_path_factory):
    """A parquet file with ids and classes."""
    path = tmp_path_factory.mktemp("source") / "train.parquet"
    return write_parquet(path, pictures, key=[f"n/{i}" for i in range(COUNT)], label=list(range(COUNT)))


@pytest.fixture(scope="session")
def loading():
    return Loading(Origin(source="tiny-imagenet-32-v", size=(8, 8)), device="cpu")


@pytest.fixture(scope="session")
def model():
    return us.load(device="cpu", size=(8, 8))


@pytest.fixture(scope="session")
def invert(model):
    """`dataset.invert` in few steps and small shards."""

    def call(source, out, **settings):
        return tasks.invert(settings.pop("model", model), source, out, **{"steps": 2, "shard": 4, "batch_size": 2, **settings})

    return call


def files_of(place):
    """The bytes of every file that does not say when it was made."""
    names = sorted(path for path in place.rglob("*") if path.is_file() and path.parent.name != "done")
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in names}
