"""Sources that are odd, damaged or hostile: one line, or the right pictures; never a traceback, a hang or the memory's end."""

from __future__ import annotations

import io
import os
import re
import tarfile

import pyarrow
import pytest
from pyarrow import parquet

from unsample.dataset import rows as rows_module
from unsample.dataset.rows import Columns
from unsample.dataset.source import Source, opened_place
from unsample.errors import ArgumentError, ImageError, RunError, UnsampleError

from .conftest import picture, write_parquet, write_tar
from .test_source import rows


def tar_of(path, *names, size=None):
    """A tar file of pictures with these names; `size` is what the header of the last says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            data = picture(len(name)) if name[-4:].lower() in (".png", ".jpg") else b"7"
            entry = tarfile.TarInfo(name)
            entry.size = len(data) if size is None or name != names[-1] else size
            archive.addfile(entry, io.BytesIO(data) if entry.size == len(data) else None)
    return path


def of(*places, **columns):
    return Source.of([str(place) for place in places], Columns(**columns))


def test_ids_of_tar_files_in_folders_of_their_names(tmp_path):
    """x.tar with y/z and x/y.tar with z; others of such names are fine."""
    tar_of(tmp_path / "x.tar", "y/z.png", "y.png")
    tar_of(tmp_path / "x" / "y.tar", "a.png")
    of(tmp_path).check_ids()
    tar_of(tmp_path / "x" / "y.tar", "z.png")
    with pytest.raises(ImageError, match="given 'x/y/z' twice"):
        of(tmp_path).check_ids()


@pytest.mark.parametrize(
    "names",
    [("a.1.png", "a.2.png"), ("a.png", "a.jpg"), ("a.PNG", "a.png"), ("a.png", "a.png"), ("a.seg.png", "a.jpg", "a.png")],
)
def test_which_picture_of_a_sample_is_said_or_refused(names, tmp_path):
    for order in (names, names[::-1]):
        with pytest.raises(ImageError, match=r"several pictures, \.\S+ and \.\S+:|twice; names differ"):
            of(tar_of(tmp_path / "a.tar", "0.png", *order))


def test_the_picture_of_a_sample_is_the_same_in_any_order(tmp_path):
    for order in (("a.png", "a.seg.png", "a.cls"), ("a.seg.png", "a.cls", "a.png")):
        [row] = rows(of(tar_of(tmp_path / "a.tar", *order)))
        assert row.data == picture(len("a.png"))


def test_what_is_passed_over_is_counted(tmp_path):
    tar_of(tmp_path / "a.tar", "0.png", "1.cls", "2.txt")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe.tar")
    (tmp_path / "folder.tar").mkdir()
    source = of(tmp_path)
    assert (len(source), source.passed_over) == (1, 5)
    assert len(of(tmp_path / "*.tar")) == 1


def test_pipes_and_names_in_any_case(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(ImageError, match="not a regular file"):
        of(tmp_path / "a.parquet")
    write_parquet(tmp_path / "B.PARQUET", [picture(0)])
    assert rows(of(tmp_path / "B.PARQUET"))[0].id == "B-00000"
    assert rows(of(tar_of(tmp_path / "c" / "C.TAR", "0.png")))[0].id == "C/0"
    tar_of(tmp_path / "d" / "d.tar.gz", "0.png")
    for place in (tmp_path / "d", tmp_path / "d" / "d.tar.gz"):
        with pytest.raises(ImageError, match=r"unpack d.tar.gz to a .tar file"):
            of(place)


def test_conditions_beside_pictures_that_are_none(tmp_path):
    """A list where an object belongs, JSON without end, numbers of other scripts."""
    for ending, text, column, expected in (
        ("json", "[1]", "json.c", "expected an object with 'c', given list"),
        ("json", "[" * 100_000, "json.c", "nested too deep"),
        ("json", '{"c": [1]}', "json.c", "expected classes or captions, given list"),
        ("cls", "٣", "cls", "expected a whole number in digits 0 to 9"),
        ("cls", "7", "txt", "has no .txt beside its picture; it has cls, png"),
    ):
        place = write_tar(tmp_path / "a.tar", [picture(0)], **{ending: [text]})
        with pytest.raises(ImageError, match=re.escape(expected)):
            rows(of(place, condition=column))


def arrow(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_columns_of_other_kinds_are_refused_when_the_source_is_listed(tmp_path):
    image = [picture(0), picture(1)]
    place = tmp_path / "a.parquet"
    for columns, given, expected in (
        ({"image": ["a.png", "b.png"]}, {}, "expected pictures as bytes.* given string .of paths or addresses"),
        ({"image": [1, 2]}, {}, "expected pictures as bytes.* given int64"),
        ({"image": [{"path": "a"}] * 2}, {}, "expected pictures as bytes.* given struct"),
        ({"image": [image, image]}, {}, "expected pictures as bytes.* given list"),
        ({"image": image, "key": [b"a", b"b"]}, {"id": "key"}, "expected ids as text or whole numbers, given binary"),
        ({"image": image, "key": [0.5, 1.5]}, {"id": "key"}, "expected ids as text or whole numbers, given double"),
        ({"image": image, "key": ["a", None]}, {"id": "key"}, "expected an id of each row, row 1 has none"),
        ({"image": image, "c": [0.5, 1.5]}, {"condition": "c"}, "expected classes or captions, given double"),
        ({"image": image, "c": [True, False]}, {"condition": "c"}, "expected classes or captions, given bool"),
        ({"image": pyarrow.array([], pyarrow.binary())}, {}, "its files have no rows"),
    ):
        with pytest.raises(ImageError, match=expected):
            of(arrow(place, **columns), **given).check_ids()
    table = pyarrow.Table.from_arrays([pyarrow.array(image)] * 2, names=["image", "image"])
    parquet.write_table(table, place)
    with pytest.raises(ImageError, match="2 columns 'image'"):
        of(place)
    arrow(place, image=image, c=[1, 2])
    arrow(tmp_path / "b.parquet", image=image, c=["1", "dog"])
    with pytest.raises(ImageError, match=r"whole numbers in \S+a.parquet and text in \S+b.parquet"):
        of(tmp_path, condition="c")
    arrow(tmp_path / "b.parquet", image=image, c=pyarrow.nulls(2))
    arrow(place, image=pyarrow.array(image).dictionary_encode(), c=pyarrow.array(["x", "y"]).dictionary_encode())
    source = of(tmp_path, condition="c")
    assert [(row.data, row.condition) for row in rows(source)] == [
        *zip(image, "xy", strict=True),
        *((one, None) for one in image),
    ]


def test_names_that_are_not_text(tmp_path):
    odd = os.fsencode(tmp_path) + b"/b\xff.png"
    with open(odd, "wb") as file:
        file.write(picture(0))
    tar_of(tmp_path / "c" / "c.tar", "b\udcff.png")
    for place in (tmp_path, tmp_path / "c"):
        with pytest.raises(ImageError, match=r"b\\udcff.* is not UTF-8"):
            of(place)


@pytest.mark.parametrize("name", ["0.png", "a.cls"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("size", [-512, -(2**40), 2**62])
def test_sizes_that_cannot_be_in_a_tar_file(size, kind, name, tmp_path):
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    whole = tar_of(tmp_path / "a.tar", "1.png").read_bytes()
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + whole)
    with pytest.raises(ImageError, match=r"is not a tar file|no pictures"):
        of(tmp_path / "a.tar")


def test_fewer_rows_than_were_listed(tmp_path, monkeypatch):
    """A file that is written again within the clock's tick; the rows of the next one do not take the place of its own."""
    for name in "ab":
        write_parquet(tmp_path / f"{name}.parquet", [picture(i) for i in range(3)])
    source = of(tmp_path)
    monkeypatch.setattr(Source, "_check", lambda self, piece: None)
    write_parquet(tmp_path / "a.parquet", [picture(0)])
    with pytest.raises(RunError, match="has 1 pictures, and 3 when it was listed"):
        rows(source)
    with pytest.raises(RunError, match="the source changed"):
        rows(source, 1, 2)


@pytest.mark.parametrize(
    "place", ["s3://", "http://[::1", "a\0b", "hf://x", "zip://a::b::c", "simplecache::", "b\udcff", "", "  "]
)
def test_addresses_of_nothing(place):
    with pytest.raises(UnsampleError) as error:
        Source.of([place])
    assert "\n" not in str(error.value)
    if not place.strip():
        with pytest.raises(ArgumentError, match="expected a path"):
            opened_place(place)


def test_pictures_that_are_too_large_are_listed(tmp_path, monkeypatch, invert):
    """Neither read nor decoded, wherever they are."""
    monkeypatch.setattr(rows_module, "LARGEST", 2000)
    large = picture(0) + b"\0" * 3000
    tar = tmp_path / "a.tar"
    with tarfile.open(tar, "w") as archive:
        for name, data in (("0.png", picture(0)), ("1.png", large)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (tmp_path / "f").mkdir()
    for name, data in (("0.png", picture(0)), ("1.png", large)):
        (tmp_path / "f" / name).write_bytes(data)
    for i, place in enumerate((write_parquet(tmp_path / "a.parquet", [picture(0), large]), tar, tmp_path / "f")):
        status = invert(place, tmp_path / f"out{i}")
        assert (status.rows, status.rejected) == (1, 1)
        [row] = parquet.read_table(tmp_path / f"out{i}" / "rejected").to_pylist()
        assert "expected a picture of at most 2,000" in row["reason"]


def test_values_of_a_dictionary_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    """A file of kilobytes whose every row is the same large value."""
    from unsample.pictures import parquet as module

    place = arrow(tmp_path / "a.parquet", image=pyarrow.array([b"\0" * 100_000] * 64))
    assert place.stat().st_size < 20_000
    monkeypatch.setattr(module, "AT_ONCE", 250_000)
    seen, values = [], module._values
    monkeypatch.setattr(module, "_values", lambda column, field: seen.append(len(column)) or values(column, field))
    assert len(rows(of(place))) == 64
    assert max(seen) == 2
