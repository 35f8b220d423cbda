"""What a picture's bytes mean: which kinds are opened, in which colours, of how many bits, and how much shows."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile

import unsample as us
from unsample.pictures.decode import FORMATS
from unsample.pictures.find import find_in, is_picture
from unsample.pictures.read import decode_photo, read_mask, read_photo

SIZE = (16, 16)
RED, BLUE = (200, 30, 30), (30, 30, 200)
SRGB = ImageCms.createProfile("sRGB")


def swapped_profile():
    """sRGB with red and blue exchanged: a valid profile of another space."""
    profile = ImageCms.ImageCmsProfile(SRGB).tobytes()
    return profile.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def encoded(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def colour(photo):
    return ((photo.pixels[:, 8, 8] + 1) * 127.5).round().int().tolist()


# Which kinds


@pytest.mark.parametrize("form", FORMATS)
def test_every_kind_that_is_promised_is_read(form):
    data = encoded(Image.new("RGB", (40, 40), RED), form)
    assert colour(decode_photo(data, "a", SIZE)) == pytest.approx(RED, abs=6)


@pytest.fixture
def watched(monkeypatch):
    """Fails where Pillow would start Ghostscript."""

    def started(*given, **named):
        raise AssertionError("a picture started a program")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    monkeypatch.setattr("subprocess.Popen", started)


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps"])
def test_postscript_is_no_picture_whatever_it_is_called(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(encoded(Image.new("RGB", (40, 40), RED), "EPS"))
    for read in (read_photo, read_mask):
        with pytest.raises(us.ImageError, match="not a picture"):
            read(path, SIZE)
    with pytest.raises(us.ImageError, match="not a picture"):
        us.load_images(path, 16)
    model = us.load(device="cpu")
    with pytest.raises(us.ImageError, match="not a picture"):
        us.invert(model, path, steps=2)
    with Image.open(path) as opened, pytest.raises(us.ImageError, match="EPS file, which takes a program to read"):
        us.invert(model, opened, steps=2)
    with Image.open(path) as opened, pytest.raises(us.ImageError, match="EPS file"):
        us.edit(model, torch.zeros(1, 3, 32, 32), to=1, steps=2, mask=opened)


@pytest.mark.usefixtures("watched")
def test_postscript_in_a_parquet_file_is_no_picture(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    data = encoded(Image.new("RGB", (40, 40), RED), "EPS")
    parquet.write_table(pa.table({"image": [{"bytes": data}]}), tmp_path / "a.parquet")
    with pytest.raises(us.ImageError, match="cannot read a-00000: not a picture"):
        us.pictures.read.read_photos([tmp_path / "a.parquet"], SIZE)


@pytest.mark.usefixtures("watched")
def test_postscript_in_a_benchmark_is_no_picture(tmp_path):
    from unsample.studies.pie_bench import Entry

    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.new("RGB", (40, 40), RED), "EPS"))
    with pytest.raises(us.ImageError, match="not a picture"):
        Entry("0", path, "a", "b").load(SIZE)


def test_only_one_place_opens_pictures():
    """So that no other place can forget the list."""
    source = us.pictures.read.Path(us.__file__).parent
    found = [path.relative_to(source).as_posix() for path in source.rglob("*.py") if "Image.open(" in path.read_text()]
    assert found == ["pictures/decode.py"]


# Colours


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_colours_are_those_of_the_embedded_profile(form):
    """Reference: LittleCMS on the opened picture."""
    profile = swapped_profile()
    options = {"quality": 100} if form != "PNG" else {}
    data = encoded(Image.new("RGB", (40, 40), RED), form, icc_profile=profile, **options)
    photo = decode_photo(data, "a", SIZE)
    with Image.open(io.BytesIO(data)) as opened:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        right = ImageCms.profileToProfile(opened, own, SRGB).getpixel((8, 8))
    assert colour(photo) == pytest.approx(right, abs=1)
    assert colour(photo)[2] > 150
    assert photo.notes == ("colours converted from its profile to sRGB",)


def test_colours_beside_transparency_and_in_a_palette_are_converted_too():
    profile, image = swapped_profile(), Image.new("RGBA", (40, 40), (*RED, 255))
    expected = colour(decode_photo(encoded(Image.new("RGB", (40, 40), RED), icc_profile=profile), "a", SIZE))
    assert colour(decode_photo(encoded(image, icc_profile=profile), "a", SIZE)) == expected
    indexed = Image.new("RGB", (40, 40), RED).convert("P", palette=Image.Palette.ADAPTIVE)
    assert colour(decode_photo(encoded(indexed, icc_profile=profile), "a", SIZE)) == expected


def test_a_profile_of_srgb_changes_no_pixel_and_is_not_mentioned():
    image = Image.merge("RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.linear_gradient("L").rotate(90)])
    plain = decode_photo(encoded(image), "a", SIZE)
    photo = decode_photo(encoded(image, icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes()), "a", SIZE)
    assert torch.equal(photo.pixels, plain.pixels)
    assert photo.notes == ()


@pytest.mark.parametrize("profile", [b"no profile", swapped_profile()[:200]], ids=["words", "cut off"])
def test_a_damaged_profile_is_ignored_with_a_note(profile):
    photo = decode_photo(encoded(Image.new("RGB", (40, 40), RED), icc_profile=profile), "a", SIZE)
    assert colour(photo) == list(RED)
    assert photo.notes == ("its colour profile cannot be used and is ignored",)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_taken_and_noted(form):
    frames = [Image.new("RGB", (40, 40), (i, 0, 0)) for i in (10, 100, 200)]
    options = {"lossless": True} if form == "WEBP" else {}
    photo = decode_photo(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options), "a", SIZE)
    assert colour(photo) == [10, 0, 0]
    assert photo.notes[0] == "the first of 3 frames or pages"


# Bits


def ramp(top=65535, dtype=np.uint16):
    return np.linspace(0, top, 64).astype(dtype)[None].repeat(64, 0)


SIXTEEN = {
    "png": lambda: encoded(Image.fromarray(ramp())),
    "tiff": lambda: encoded(Image.fromarray(ramp()), "TIFF"),
    "big-endian tiff": lambda: encoded(Image.fromarray(ramp(dtype=">u2")), "TIFF"),
    "pgm": lambda: b"P5 64 64 65535\n" + ramp(dtype=">u2").tobytes(),
    "float tiff": lambda: encoded(Image.fromarray(ramp(1, np.float32)), "TIFF"),
}


@pytest.mark.parametrize("kind", SIXTEEN)
def test_more_than_eight_bits_are_scaled_in_photographs_and_masks(tmp_path, kind):
    """Reference: the same ramp of eight bits."""
    (tmp_path / "more").write_bytes(SIXTEEN[kind]())
    Image.fromarray((ramp() / 257).round().astype(np.uint8)).save(tmp_path / "8.png")
    more, eight = (read_photo(tmp_path / name, (64, 64)) for name in ("more", "8.png"))
    assert torch.allclose(more.pixels, eight.pixels, atol=1.01 / 127.5)
    assert float(read_mask(tmp_path / "more", (64, 64)).float().mean()) == pytest.approx(0.5, abs=0.02)


# Masks


def alpha_mask(inside, outside):
    """A square in the middle, a quarter of the area."""
    image = Image.new("RGBA", (64, 64), outside)
    image.paste(inside, (16, 16, 48, 48))
    return image


MASKS = {
    "8 bits": (Image.fromarray((ramp() // 257).astype(np.uint8)), 0.5),
    "16 bits": (Image.fromarray(ramp()), 0.5),
    "white, opaque in the middle": (alpha_mask((255, 255, 255, 255), (255, 255, 255, 0)), 0.25),
    "black, opaque in the middle": (alpha_mask((0, 0, 0, 255), (0, 0, 0, 0)), 0.25),
    "white on black, all opaque": (alpha_mask((255, 255, 255, 255), (0, 0, 0, 255)), 0.25),
    "white on transparent black": (alpha_mask((255, 255, 255, 255), (0, 0, 0, 0)), 0.25),
    "grey and alpha": (alpha_mask((255, 255, 255, 255), (255, 255, 255, 0)).convert("LA"), 0.25),
    "palette": (alpha_mask((255, 255, 255, 255), (0, 0, 0, 255)).convert("RGB").convert("P"), 0.25),
    "two values": (alpha_mask((255, 255, 255, 255), (0, 0, 0, 255)).convert("1"), 0.25),
    "colours": (alpha_mask((255, 255, 255, 255), (0, 0, 60, 255)).convert("RGB"), 0.25),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind_have_the_area_they_show(tmp_path, kind):
    image, share = MASKS[kind]
    image.save(tmp_path / "mask.png")
    found = read_mask(tmp_path / "mask.png", (64, 64))
    assert float(found.float().mean()) == pytest.approx(share, abs=0.01)
    model, picture = us.load(device="cpu"), torch.zeros(1, 3, 32, 32)
    masks = (tmp_path / "mask.png", Image.open(tmp_path / "mask.png"))
    from_file, from_image = (us.edit(model, picture, to=1, steps=2, mask=mask).mask for mask in masks)
    assert torch.equal(from_file, from_image)
    assert float(from_image.float().mean()) == pytest.approx(share, abs=0.05)


def test_masks_as_arrays():
    model, picture, free = us.load(device="cpu"), torch.zeros(1, 3, 32, 32), np.zeros((32, 32), dtype=bool)
    free[:16] = True
    kinds = [free, free.astype(np.float32), free.astype(np.uint8), free.astype(np.uint8) * 255]
    for mask in kinds:
        assert float(us.edit(model, picture, to=1, steps=2, mask=mask).mask.float().mean()) == 0.5


# Files


def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        for read in (read_photo, read_mask):
            with pytest.raises(us.ImageError, match="not a regular file"):
                read(path, SIZE)
        with pytest.raises(us.ImageError, match="a pipe or a device"):
            find_in([path])


def test_a_folder_is_looked_through_by_content(tmp_path):
    picture = Image.new("RGB", (64, 64), RED)
    for suffix, form in {"png": "PNG", "jfif": "JPEG", "jpe": "JPEG", "avif": "AVIF", "jp2": "JPEG2000", "tga": "TGA"}.items():
        picture.save(tmp_path / f"a.{suffix}", form)
    picture.save(tmp_path / "without", "PNG")
    picture.save(tmp_path / "named.otherwise", "JPEG")
    for name, data in {
        "notes.txt": b"BMW, P5 and GIF\n",
        ".hidden.png": b"",
        "weights.pt": b"PK\3\4",
        "half.png": b"\x89PNG",
    }.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe")
    found = find_in([tmp_path])
    pictures = ["a.avif", "a.jfif", "a.jp2", "a.jpe", "a.png", "a.tga", "half.png", "named.otherwise", "without"]
    assert [path.name for path in found.paths] == pictures
    assert [path.name for path in found.passed_over] == ["notes.txt", "pipe", "weights.pt"]
    assert not is_picture(tmp_path / "notes.txt")


def test_a_bomb_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for read in (read_photo, read_mask):
        with pytest.raises(us.ImageError, match="decompression bomb"):
            read(tmp_path / "a.png", SIZE)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
