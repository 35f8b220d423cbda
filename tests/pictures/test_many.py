"""Many pictures at once: names that tell them apart, broken ones left out, few rows in memory, tensors beside files."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

import unsample as us
from unsample.errors import printable
from unsample.pictures.find import distinct_names, find_in
from unsample.pictures.read import Photo, read_all, read_photo, read_photos
from unsample.runs.manifest import Item

SIZE = (16, 16)


def picture(path, colour=(200, 30, 30), size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def test_broken_pictures_are_left_out_with_their_reason_and_the_rest_is_read(tmp_path):
    for name in ("a.png", "c.png"):
        picture(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"\x89PNG and no more")
    picture(tmp_path / "d.png", size=(8, 40))
    (tmp_path / "notes.txt").write_bytes(b"")
    reading = read_all([tmp_path], SIZE)
    assert [photo.name for photo in reading.photos] == ["a.png", "c.png"]
    assert [one.name for one in reading.rejected] == ["b.png", "d.png"]
    assert "smaller than the model's 16x16" in reading.rejected[1].reason
    assert reading.passed_over == ["notes.txt"]
    assert [photo.name for photo in read_all([tmp_path], SIZE, limit=2).photos] == ["a.png", "c.png"]
    assert read_all([tmp_path], SIZE, limit=1).rejected == []
    with pytest.raises(us.ImageError, match=r"b\.png"):
        read_all([tmp_path], SIZE, strict=True)
    with pytest.raises(us.ImageError, match=r"b\.png"):
        read_photos([tmp_path], SIZE)


def test_where_nothing_can_be_read_it_is_an_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(us.ImageError, match=r"^cannot read .*a\.png: not a picture"):
        read_all([tmp_path / "a.png"], SIZE)
    with pytest.raises(us.ImageError, match=r"none of 2 pictures can be read, the first: cannot read .*a\.png"):
        read_all([tmp_path], SIZE)


def test_broken_rows_of_a_parquet_file_are_left_out(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    whole = picture(tmp_path / "a.png").read_bytes()
    rows = [{"bytes": data} for data in (whole, b"", None, whole)]
    parquet.write_table(pa.table({"image": rows}), tmp_path / "a.parquet")
    reading = read_all([tmp_path / "a.parquet"], SIZE)
    assert [photo.name for photo in reading.photos] == ["a-00000", "a-00003"]
    assert [one.name for one in reading.rejected] == ["a-00001", "a-00002"]


def test_a_parquet_file_that_unpacks_large_is_read_row_by_row(tmp_path):
    """One picture of 3 MB, again and again, is a file of kilobytes."""
    import pyarrow as pa
    from pyarrow import parquet

    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.bmp")
    table = pa.table({"image": [{"bytes": (tmp_path / "a.bmp").read_bytes()}] * 100, "label": [0] * 100})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    default = pa.default_memory_pool()
    watched = pa.proxy_memory_pool(default)
    pa.set_memory_pool(watched)
    try:
        assert len(read_photos([tmp_path / "a.parquet"], SIZE, limit=2)) == 2
        assert 3e6 < watched.max_memory() < 40e6  # of 300e6
    finally:
        pa.set_memory_pool(default)


def test_a_parquet_file_that_unpacks_a_thousandfold_in_one_piece_is_refused(tmp_path, monkeypatch):
    import pyarrow as pa
    from pyarrow import parquet

    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.bmp")
    table = pa.table({"image": [{"bytes": (tmp_path / "a.bmp").read_bytes()}] * 20})
    parquet.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    monkeypatch.setattr("unsample.pictures.parquet.LARGE", 10e6)
    with pytest.raises(us.ImageError, match=r"a\.parquet unpacks .* bytes to 60"):
        read_photos([tmp_path / "a.parquet"], SIZE)


def test_names_are_as_long_as_it_takes_to_tell_files_apart(tmp_path):
    for place in ("cats/same.jpg", "dogs/same.jpg", "old/dogs/same.jpg", "old/other.jpg"):
        picture(tmp_path / place)
    places = [tmp_path / place for place in ("cats/same.jpg", "dogs/same.jpg", "old/dogs/same.jpg", "old/other.jpg")]
    wanted = ["cats/same.jpg", f"{tmp_path.name}/dogs/same.jpg", "old/dogs/same.jpg", "other.jpg"]
    assert distinct_names(places) == wanted
    assert [photo.name for photo in read_photos(places, SIZE)] == wanted
    assert distinct_names([places[0], places[0]]) == ["same.jpg", "same.jpg"]


def test_a_picture_that_is_given_again_is_read_again(tmp_path):
    a, b = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (0, 0, 9))
    (tmp_path / "link.png").symlink_to(a)
    photos = read_photos([a, b, a, tmp_path / "link.png"], SIZE)
    assert [photo.name for photo in photos] == ["a.png", "b.png", "a.png", "link.png"]
    assert photos[0].id == photos[2].id == photos[3].id != photos[1].id


@pytest.mark.parametrize(
    "place", ["a" * 5000, "a" * 5000 + "*.png", "~nouser/x.png", "nul\0.png", "in/" * 3000, "\udcff.png"], ids=str.__len__
)
def test_names_that_cannot_be_are_one_short_line(place):
    for find in (lambda: find_in([place]), lambda: us.load_images([place], 16)):
        with pytest.raises(us.ImageError) as caught:
            find()
        assert "\n" not in str(caught.value)
        str(caught.value).encode()
    with pytest.raises(us.ImageError) as caught:
        find_in([place])
    assert len(str(caught.value)) < 300


def test_names_act_on_no_terminal_and_can_be_written(tmp_path):
    raw = "red\x1b[31m\u202egnp.png"
    path = picture(tmp_path / "a.png").rename(tmp_path / raw)
    assert read_photo(path, SIZE).name == printable(raw) == r"red\x1b[31m\u202egnp.png"
    path.write_bytes(b"")
    with pytest.raises(us.ImageError) as caught:
        read_photo(path, SIZE)
    assert "\x1b" not in str(caught.value)
    fine = " Zürich 東京 👩\u200d🚀 e\u0301.png"
    assert printable("\udcff\x9b\x07" + fine) == r"\udcff\x9b\x07" + fine
    bad = picture(tmp_path / "b.png").rename(str(tmp_path / "b\udcff.png"))
    read_photo(bad, SIZE).name.encode()
    Item(name="b\udcff\x1b", id="0", width=1, height=1).model_dump_json()


def test_one_path_and_one_number_will_do(tmp_path):
    path = picture(tmp_path / "one.png")
    expected = us.load_images([path], (16, 16))
    assert torch.equal(us.load_images(path, size=16), expected)
    assert torch.equal(us.load_images(str(path), size=16), expected)


def test_a_photo_says_how_it_was_reduced(tmp_path):
    assert read_photo(picture(tmp_path / "a.png"), SIZE).reduced == "reduced from 40x40 to 16x16"
    assert read_photo(picture(tmp_path / "b.png", size=(16, 16)), SIZE).reduced == ""
    assert Photo.of(torch.zeros(3, 4, 4), "x").reduced == ""


def test_a_tensor_that_looks_like_0_to_1_is_warned_of_and_no_other():
    model = us.load(device="cpu")
    with pytest.warns(UserWarning, match=r"given some in \[0, 1\].*images \* 2 - 1"):
        us.invert(model, torch.rand(1, 3, 32, 32), steps=2)
    for fine in (torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32), torch.rand(1, 3, 32, 32) * 2 - 1):
        us.invert(model, fine, steps=2)
