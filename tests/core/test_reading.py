"""JSON, TOML and numbers that people wrote: one reader, which refuses what is no value in one line."""

from __future__ import annotations

import math
import os

import pytest

import unsample as us
from unsample.core import reading
from unsample.core.files import expanded
from unsample.methods.starts import parse_start
from unsample.models import configs, download
from unsample.models.openai import flags
from unsample.runs.manifest import Manifest

DEEP = {"python": "[" * 100_000, "here": '{"x":' * 150 + "1" + "}" * 150}


@pytest.mark.parametrize("text", [*DEEP.values(), '{"x": NaN}', "[[1, NaN]]", "{", "", "\udcff", "9" * 5000])
def test_json_that_is_no_value_is_refused_by_every_reader(tmp_path, text):
    data = text.encode(errors="surrogateescape")
    file = tmp_path / "net.json"
    file.write_bytes(data)
    for read in (reading.json_of, Manifest.read):
        with pytest.raises((ValueError, us.RunError)):
            read(data)
    for read in (configs.read_json, configs.check_config, lambda _: flags.flags_of(tmp_path / "net.pt")):
        with pytest.raises(us.ModelError) as refused:
            read(file)
        assert len(str(refused.value)) < 700


def test_an_infinite_number_is_one(tmp_path):
    """Schedulers of diffusers write `lambda_min_clipped: -Infinity`."""
    (tmp_path / "a.json").write_text('{"lambda_min_clipped": -Infinity}')
    assert configs.check_config(tmp_path / "a.json") == {"lambda_min_clipped": -math.inf}


@pytest.mark.parametrize("text", ["x = nan", "x = " + "[" * 150 + "]" * 150, "x = " + "[" * 100_000, "x"])
def test_toml_that_is_no_value_is_refused(text):
    with pytest.raises(ValueError, match=r"nested|NaN|Expected"):
        reading.toml_of(text)


def test_a_text_of_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        os.truncate(file.fileno(), reading.MOST + 1)
    for read in (reading.read_json, reading.read_text, reading.read_bytes):
        with pytest.raises(ValueError, match="at most 256 MiB"):
            read(tmp_path / "a.json")


ODD_NUMBERS = ("２", "٣", "1_0", "²", "", "0x1", "1 0", "--1", "१%", "sigma=０.1", "1_0%", "２@plain", "5%5%")


@pytest.mark.parametrize("text", ODD_NUMBERS)
def test_numbers_are_in_ascii_digits(text):
    for parse in (reading.whole_of, reading.number_of):
        with pytest.raises(ValueError, match="digits 0 to 9"):
            parse(text)
    with pytest.raises(us.ArgumentError, match="expected a forward start"):
        parse_start(text)


def test_numbers_are_read_as_python_reads_them():
    for text in ("0", "-12", "+3", " 7 ", "007"):
        assert reading.whole_of(text) == int(text)
    for text in ("1.5", ".5", "5.", "-1e-3", "1E5", "inf", "-Infinity", " 2 "):
        assert reading.number_of(text) == float(text)
    assert math.isnan(reading.number_of("nan"))


def test_an_empty_path_is_not_the_current_folder():
    for empty in ("", "  "):
        for take in (expanded, us.load, lambda text: download.fetch("tiny-imagenet-64", text)):
            with pytest.raises(us.ArgumentError, match="expected a"):
                take(empty)
