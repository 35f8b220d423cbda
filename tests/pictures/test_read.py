"""Every ordinary kind of picture has a promised outcome."""

import io
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image, features

import unsample as us
from unsample.pictures.find import find_photos
from unsample.pictures.read import demo_photos, png_bytes, read_photo, read_photos, save_png, to_bytes

SIZE = (16, 16)
RED = (255, 0, 0)


def gradient(mode="RGB", size=(24, 20)):
    """A picture that is neither constant nor symmetric."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    rgb = np.stack([x * 255 // size[0], y * 255 // size[1], (x + y) * 3 % 256], -1).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def same(photo, expected, atol=0.0):
    """Pixels equal those of an RGB picture, after the same crop."""
    expected = torch.from_numpy(np.asarray(expected, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)
    torch.testing.assert_close(photo.pixels, expected, rtol=0, atol=atol + 1e-6)


# What is taken


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "gif", "webp", "jpg"])
def test_ordinary_pictures(tmp_path, suffix):
    image = gradient(size=(16, 16))
    if suffix == "webp" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    options = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}.get(suffix, {})
    photo = read_photo(saved(tmp_path / f"a.{suffix}", image, **options), SIZE)
    same(photo, image, atol={"jpg": 0.2, "gif": 0.4}.get(suffix, 0))
    assert (photo.name, photo.original, photo.pixels.shape) == (f"a.{suffix}", (16, 16), (3, 16, 16))
    assert photo.pixels.dtype == torch.float32
    assert len(photo.notes) == (suffix == "gif")


def test_centre_crop_and_area_average(tmp_path):
    """Reference: numpy, the central square in blocks of 2x2, to one grey level (Pillow rounds twice)."""
    image = gradient(size=(40, 32))
    photo = read_photo(saved(tmp_path / "a.png", image), SIZE)
    middle = np.asarray(image, dtype=np.float64)[:, 4:36]
    blocks = middle.reshape(16, 2, 16, 2, 3).mean((1, 3))
    same(photo, blocks, atol=1.01 / 127.5)
    assert photo.original == (40, 32)
    assert read_photo(tmp_path / "a.png", (8, 24)).pixels.shape == (3, 8, 24)


def test_greyscale_is_repeated(tmp_path):
    image = gradient("L", (16, 16))
    photo = read_photo(saved(tmp_path / "a.png", image), SIZE)
    same(photo, image.convert("RGB"))
    assert photo.notes == ("greyscale repeated in three channels",)


def test_black_and_white_is_repeated(tmp_path):
    image = gradient("1", (16, 16))
    photo = read_photo(saved(tmp_path / "a.png", image), SIZE)
    same(photo, image.convert("RGB"))
    assert photo.notes == ("black and white repeated in three channels",)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_white(tmp_path, mode):
    image = Image.new(mode, (16, 16), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    image.paste(Image.new(mode, (8, 16), (255, 0, 0, 255) if mode == "RGBA" else (100, 255)), (0, 0))
    image.paste(Image.new(mode, (4, 16), (0, 0, 0, 51) if mode == "RGBA" else (0, 51)), (8, 0))
    photo = read_photo(saved(tmp_path / "a.png", image), SIZE)
    assert photo.notes == ("transparency laid on white",)
    expected = Image.new("RGB", (16, 16), "white")
    expected.paste(RED if mode == "RGBA" else (100, 100, 100), (0, 0, 8, 16))
    expected.paste((204, 204, 204), (8, 0, 12, 16))
    same(photo, expected, atol=1.01 / 127.5)


def test_palette_with_and_without_transparency(tmp_path):
    image = Image.new("P", (16, 16), 0)
    image.putpalette([*RED, 0, 0, 255] + [0] * 762)
    image.paste(1, (0, 0, 16, 8))
    expected = Image.new("RGB", (16, 16), RED)
    expected.paste((0, 0, 255), (0, 0, 16, 8))
    photo = read_photo(saved(tmp_path / "a.png", image), SIZE)
    same(photo, expected)
    assert photo.notes == ("converted from P to RGB",)
    photo = read_photo(saved(tmp_path / "b.png", image, transparency=0), SIZE)
    expected.paste("white", (0, 8, 16, 16))
    same(photo, expected)
    assert photo.notes == ("transparency laid on white",)


def test_cmyk_is_converted(tmp_path):
    photo = read_photo(saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95), SIZE)
    assert photo.notes == ("converted from CMYK to RGB",)
    same(photo, Image.new("RGB", (16, 16), RED), atol=4 / 127.5)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled(tmp_path, suffix):
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    photo = read_photo(saved(tmp_path / f"a.{suffix}", Image.fromarray(values)), SIZE)
    assert photo.notes == ("16-bit greyscale scaled to 8 bits",)
    same(photo, np.repeat((values / 257).round()[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    """Reference: the eight orientations of the EXIF standard, as numpy flips and turns of the stored pixels."""
    stored = np.asarray(gradient(size=(16, 16)))
    upright = {
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(saved(tmp_path / "a.png", Image.fromarray(stored), exif=exif), SIZE)
    same(photo, upright)
    assert photo.notes == ("rotated as its EXIF says",)


@pytest.mark.parametrize("orientation", [0, 1, 9])
def test_orientations_that_say_nothing_are_not_mentioned(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = gradient(size=(16, 16))
    photo = read_photo(saved(tmp_path / "a.png", image, exif=exif), SIZE)
    same(photo, image)
    assert photo.notes == ()


def test_rotation_comes_before_the_size_is_judged(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "a.jpg", gradient(size=(40, 16)), exif=exif)
    assert read_photo(path, (40, 16)).original == (16, 40)


def test_the_first_frame_of_a_phone_photo_is_taken(tmp_path):
    """MPO: a JPEG with a preview as second frame."""
    image = gradient(size=(16, 16))
    path = saved(
        tmp_path / "a.jpg", image, format="MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))], quality=95
    )
    with Image.open(path) as opened:
        assert opened.format == "MPO"
        assert opened.n_frames == 2
    same(read_photo(path, SIZE), image, atol=0.3)


def test_a_picture_named_as_another_kind_is_still_a_picture(tmp_path):
    image = gradient(size=(16, 16))
    same(read_photo(saved(tmp_path / "a.jpg", image, format="PNG"), SIZE), image)


def test_id_is_that_of_the_bytes_not_of_the_place(tmp_path):
    one, two = saved(tmp_path / "a.png", gradient()), tmp_path / "b.png"
    two.write_bytes(one.read_bytes())
    other = saved(tmp_path / "c.png", gradient(size=(32, 32)))
    assert read_photo(one, SIZE).id == read_photo(two, SIZE).id != read_photo(other, SIZE).id


# What is refused


def write_bad(folder, kind):
    """A file of a kind that has no meaning, and what is said of it."""
    path = folder / "bad.png"
    whole = io.BytesIO()
    gradient(size=(64, 64)).save(whole, format="JPEG" if "jpeg" in kind else "PNG")
    if kind == "missing":
        return path, "no such picture: .*check the path"
    if kind == "folder":
        path.mkdir()
        return path, "cannot read"
    if kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"this is not a picture\n" * 99)
        return path, "not a picture; expected a whole PNG, JPEG"
    if kind.startswith("half"):
        path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        return path, "cannot read"
    if kind == "small":
        saved(path, gradient(size=(15, 40)))
        return path, "is 15x40 pixels, smaller than the model's 16x16; give a larger picture"
    if kind == "float":
        path = saved(folder / "bad.tif", Image.fromarray(7 * np.random.default_rng(0).random((20, 20), dtype=np.float32)))
        return path, "holds F data of unknown range"
    if kind == "32 bits":
        path = saved(folder / "bad.tif", Image.fromarray(np.arange(400, dtype=np.int32).reshape(20, 20)))
        return path, "holds I data of unknown range"
    saved(folder / "whole.eps", gradient(size=(64, 64)), format="EPS").rename(path)
    return path, "not a picture; expected"


KINDS = ["missing", "folder", "empty", "text", "half png", "half jpeg", "small", "float", "32 bits", "postscript"]


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_without_meaning_are_refused_in_one_line(tmp_path, kind):
    path, says = write_bad(tmp_path, kind)
    with pytest.raises(us.ImageError, match=says) as caught:
        read_photo(path, SIZE)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    with pytest.raises(us.ImageError, match=says):
        us.load_images([path], SIZE)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", gradient(size=(64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(us.ImageError, match="decompression bomb"):
        read_photo(path, SIZE)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "exif"])
def test_damaged_bytes_give_a_picture_or_an_image_error(tmp_path, monkeypatch, form):
    """Whatever is cut off or changed, no other exception comes out."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    rng, whole, exif = random.Random(0), io.BytesIO(), Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    gradient().save(whole, format="JPEG" if form == "exif" else form, **({"exif": exif} if form == "exif" else {}))
    data, refused, lines = whole.getvalue(), 0, set()
    for trial in range(120):
        bad = bytearray(data)
        if trial % 3 == 0:
            bad = bad[: rng.randrange(len(bad))]
        else:
            near = 200 if trial % 3 == 1 else len(bad)
            for _ in range(rng.randint(1, 6)):
                bad[rng.randrange(min(near, len(bad)))] = rng.randrange(256)
        (tmp_path / "a").write_bytes(bad)
        try:
            assert read_photo(tmp_path / "a", SIZE).pixels.isfinite().all()
        except us.ImageError as error:
            refused += 1
            lines.add(str(error).count("\n"))
    assert refused > 20
    assert lines == {0}


def test_no_pictures_at_all_is_refused():
    with pytest.raises(us.ImageError, match="at least one picture, given none"):
        us.load_images([], SIZE)


def test_load_images_makes_a_batch_in_order(tmp_path):
    paths = [saved(tmp_path / f"{i}.png", Image.new("RGB", (20, 20), (i, 0, 255))) for i in (9, 200)]
    batch = us.load_images(reversed(paths), SIZE)
    assert batch.shape == (2, 3, 16, 16)
    assert batch[:, 0, 0, 0].tolist() == pytest.approx([200 / 127.5 - 1, 9 / 127.5 - 1])
    assert batch[0, 2, 0, 0] == 1


# Finding


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with two pictures, a text, and a folder below with one more."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "none").mkdir()
    for name in ("in/b.PNG", "in/a.jpg", "in/notes.txt", "in/below/c.png"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(places):
    return [path.name for path in find_photos(places)]


def test_find_in_files_folders_and_globs(folder):
    assert names(["in"]) == ["a.jpg", "b.PNG"]
    assert names(["in/b.PNG", "in/a.jpg"]) == ["b.PNG", "a.jpg"]
    assert names(["in/*.jpg", "in/below"]) == ["a.jpg", "c.png"]
    assert names(["in/**/*.png"]) == ["c.png"]
    assert names([folder / "in" / "notes.txt"]) == ["notes.txt"]


def test_what_is_given_again_is_there_again_in_its_place(folder):
    os.symlink(folder / "in" / "a.jpg", folder / "link.jpg")
    assert names(["in/a.jpg", "in/b.PNG", "in/a.jpg"]) == ["a.jpg", "b.PNG", "a.jpg"]
    assert names(["in", "in/../in/a.jpg", "link.jpg"]) == ["a.jpg", "b.PNG", "a.jpg", "link.jpg"]


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(folder):
    (folder / "a[1].png").write_bytes(b"")
    assert names(["a[1].png"]) == ["a[1].png"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("nowhere.png", "no such file or folder: nowhere.png"),
        ("none", "no pictures in folder none: expected files of PNG"),
        ("in/*.tif", "no file matches"),
        ("", "."),
    ],
)
def test_places_without_pictures(folder, place, says):
    if place == "":
        (folder / "in").rename(folder / "elsewhere")
    with pytest.raises(us.ImageError, match=says):
        find_photos([place])


def test_demo_photos_are_there_and_large_enough():
    photos = demo_photos()
    assert len(photos) >= 4
    assert us.load_images(photos, (32, 32)).shape == (len(photos), 3, 32, 32)


# Writing


def test_bytes_there_and_back(tmp_path):
    image = gradient(size=(16, 16))
    photo = read_photo(saved(tmp_path / "a.png", image), SIZE)
    assert np.array_equal(to_bytes(photo.pixels), np.asarray(image))
    save_png(photo.pixels, tmp_path / "new" / "b.png")
    assert torch.equal(read_photo(tmp_path / "new" / "b.png", SIZE).pixels, photo.pixels)
    assert (tmp_path / "new" / "b.png").read_bytes() == png_bytes(photo.pixels)


def test_values_beyond_the_range_are_clamped_and_one_channel_repeated():
    assert to_bytes(torch.tensor([[[-3.0, -1.0, 0.0, 1.0, 7.0]]], dtype=torch.float64))[0, :, 0].tolist() == [
        0,
        0,
        128,
        255,
        255,
    ]
    assert to_bytes(torch.zeros(1, 2, 2)).shape == (2, 2, 3)


def test_writing_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(us.RunError, match="cannot write"):
        save_png(torch.zeros(3, 4, 4), tmp_path / "file" / "a.png")


def test_parquet_of_pictures_is_read_in_order_up_to_a_limit(tmp_path):
    """Reference: the same bytes as files."""
    import pyarrow as pa
    from pyarrow import parquet

    data = [(tmp_path / f"{i}.png", (40 * i, 10, 200)) for i in range(4)]
    for path, colour in data:
        Image.new("RGB", (48, 40), colour).save(path)
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path, _ in data]
    parquet.write_table(pa.table({"image": rows, "label": [0] * 4}), tmp_path / "all.parquet")
    photos = read_photos([tmp_path / "all.parquet", tmp_path / "3.png"], (32, 32))
    assert [photo.id for photo in photos[:4]] == [read_photo(path, (32, 32)).id for path, _ in data]
    assert len(photos) == 5
    assert len(read_photos([tmp_path / "all.parquet"], (32, 32), limit=3)) == 3
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(us.ImageError, match="not a parquet file"):
        read_photos([tmp_path / "bad.parquet"], (32, 32))
