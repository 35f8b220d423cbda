"""Sources of pictures: which rows they have, with which ids, wherever they lie."""

from __future__ import annotations

import fsspec
import pytest

from unsample.dataset.rows import Columns
from unsample.dataset.source import Source
from unsample.errors import ArgumentError, ImageError, RunError

from .conftest import COUNT, picture, write_parquet, write_tar


def rows(source, first=0, count=None):
    return list(source.rows(first, len(source) if count is None else count))


@pytest.fixture
def folder(pictures, tmp_path):
    for i, data in enumerate(pictures):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class{i % 2}" / f"{i:02d}.png").write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("first", range(COUNT))
@pytest.mark.parametrize("kind", ["parquet", "tar", "folder"])
def test_rows_from_any_row_on(kind, first, pictures, source, folder, tmp_path):
    places = {"parquet": source, "folder": folder}
    place = write_tar(tmp_path / "a.tar", pictures) if kind == "tar" else places[kind]
    every = rows(Source.of([str(place)]))
    assert sorted(row.data for row in every) == sorted(pictures)
    assert rows(Source.of([str(place)]), first, 3) == every[first : first + 3]
    in_turn = Source.of([str(place)])
    assert [*in_turn.rows(first, 2), *in_turn.rows(first + 2, 2), *in_turn.rows(0, 1)] == [*every[first : first + 4], every[0]]


def test_ids_are_places(source, folder, pictures, tmp_path):
    assert [row.id for row in rows(Source.of([str(source)]), 0, 2)] == ["train-00000", "train-00001"]
    assert [row.id for row in rows(Source.of([str(source)], Columns(id="key")), 3, 1)] == ["n/3"]
    assert rows(Source.of([str(folder)]))[0].id == "class0/00.png"
    write_tar(tmp_path / "b.tar", pictures)
    assert rows(Source.of([str(tmp_path / "*.tar")]))[1].id == "b/001"


def test_conditions(source, pictures, tmp_path):
    assert [row.condition for row in rows(Source.of([str(source)], Columns(condition="label")), 4, 2)] == [4, 5]
    tar = write_tar(
        tmp_path / "c.tar", pictures, cls=range(COUNT), txt=["a dog"] * COUNT, json=['{"caption": "a cat"}'] * COUNT
    )
    for name, expected in (("cls", 2), ("txt", "a dog"), ("json.caption", "a cat")):
        assert rows(Source.of([str(tar)], Columns(condition=name)), 2, 1)[0].condition == expected


def test_other_filesystems(pictures, source):
    """The same rows from memory as from disk, by address."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/there/train.parquet", source.read_bytes())
    assert rows(Source.of(["memory://there"])) == rows(Source.of([str(source)]))
    assert rows(Source.of([f"file://{source}"])) == rows(Source.of([str(source)]))


def test_several_files_and_globs(pictures, tmp_path):
    for part in ("b", "a"):
        write_parquet(tmp_path / f"{part}.parquet", pictures[:2])
    expected = ["a-00000", "a-00001", "b-00000", "b-00001"]
    assert [row.id for row in rows(Source.of([str(tmp_path)]))] == expected
    assert [row.id for row in rows(Source.of([str(tmp_path / "*.parquet")]))] == expected
    assert rows(Source.of([str(tmp_path / "b.parquet"), str(tmp_path / "a.parquet")]))[0].id == "b-00000"


def test_what_is_no_source_is_refused(tmp_path, source, pictures):
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.parquet").write_bytes(b"no")
    (tmp_path / "no.tar").write_bytes(b"no" * 600)
    (tmp_path / "one.png").write_bytes(pictures[0])
    write_tar(tmp_path / "two.tar", pictures, cls=["a"] * COUNT)
    for places, columns, expected in (
        ([], Columns(), "given none"),
        ([tmp_path / "missing"], Columns(), "no pictures in"),
        ([tmp_path / "empty"], Columns(), "no pictures in"),
        ([tmp_path / "*.jpg"], Columns(), "no pictures in"),
        ([tmp_path / "no.parquet"], Columns(), "not a parquet file"),
        ([tmp_path / "no.tar"], Columns(), "not a tar file"),
        ([source, tmp_path / "one.png"], Columns(), "files of one kind"),
        ([source], Columns(image="picture"), "no column 'picture': expected one of image, key, label"),
        ([source], Columns(condition="class"), "no column 'class'"),
        ([tmp_path / "one.png"], Columns(condition="label"), "have no columns"),
        ([tmp_path / "two.tar"], Columns(id="key"), "have their own ids"),
        ([tmp_path / "two.tar"], Columns(condition="txt"), "has no .txt beside its picture"),
        ([tmp_path / "two.tar"], Columns(condition="cls"), "expected a whole number in digits"),
    ):
        with pytest.raises(ImageError, match=expected):
            rows(Source.of([str(place) for place in places], columns))
    for place in ("nowhere://x", "s3://bucket/x"):
        with pytest.raises(ArgumentError, match="cannot open"):
            Source.of([place])


def test_ids_must_differ(tmp_path, pictures, source):
    twice = write_parquet(tmp_path / "twice.parquet", pictures[:3], key=["a", "b", "a"])
    with pytest.raises(ImageError, match="given 'a' twice in column 'key'"):
        Source.of([str(twice)], Columns(id="key")).check_ids()
    with pytest.raises(ImageError, match="given 'train' twice"):
        Source.of([str(source), str(source)]).check_ids()
    Source.of([str(source)], Columns(id="key")).check_ids()


def test_a_source_that_changes_is_refused(tmp_path, pictures):
    place = write_parquet(tmp_path / "a.parquet", pictures)
    listed = Source.of([str(place)])
    write_parquet(place, [picture(12), *pictures[1:]])
    with pytest.raises(RunError, match="the source changed"):
        rows(listed)
    place.unlink()
    with pytest.raises(RunError, match="the source changed"):
        rows(listed)
