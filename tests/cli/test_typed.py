"""Whatever is typed: hundreds of command lines, each option of each command with odd values, and files of odd content."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import typer
from PIL import Image

from unsample import pictures as plotting
from unsample.cli import app

from .conftest import one_line

LONG = "x" * 5000
ODD = (
    *("", " ", LONG, "-", "-1", "0", "nan", "inf", "-inf", "1e400", "1000000000000", "9" * 400, "1.5", "none", "auto", "True"),
    *("~nouser/x", "~", ".", "/dev/null", "/proc/self/mem", "no/such/place", "*.jpg", "[", "a" * 300 + "/b"),
    *("\x1b[31mred\x07", "caf\udce9", "a\0b", "a\nb", "$x_{$", "\N{PILE OF POO}", "\u202egnp.jpg", "%s%n", "{}", "[" * 3000),
    *(
        ":",
        "=",
        ":=",
        "a:b",
        "a:b=c",
        "ddim:x=1",
        "fixed-point:iterations=" + "-" * 3000 + "1",
        "ab:order=9",
        "ab:order=2:order=3",
    ),
    *(
        "fixed-point:iterations=1000000000",
        "fixed-point:iterations={[]:1}",
        "exact:method=exact/method=ddim",
        "exact:method=3",
    ),
    *(
        "exact:method=3",
        "leading:offset=1e400",
        "karras:rho=nan",
        "karras:rho=-1",
        "leading:offset=-5",
        "trdi:first=9999",
        "trdi:exponent=1e5",
    ),
    *("0,0", "1,2", ",", "2@", "@next", "2@plain", "sigma=", "sigma=nan", "sigma=1e-400", "400%", "-1%", "1e400%"),
    *("http://[::1", "ftp://x", "8x8", "0x0", "999999x999999", "meta", "mps", "xla", "hpu", "vulkan", "cuda:99", "cpu:7"),
)
"""Values that someone, or something, may give to any option."""


KNOWN = {
    "--device": ("meta", "mps", "xla", "hpu", "vulkan", "cuda:0", "http://[::1", "", "cpu:7"),
    "--spacing": ("leading:offset=1e400", "karras:rho=x", "trdi:first=-1", "linspace:x=1", "", "leading:offset=-5"),
    "--method": ("fixed-point:iterations=" + "-" * 5000, "fixed-point:iterations=1e99", "ab:order=x", "", "edict:p=nan"),
    "--model": ("~nouser/x", LONG, "caf\udce9", "", "a/b/c", "$x_{$", "\x1b[31mred"),
    "--guidance": ("nan", "inf", "-inf", "1e308"),
    "--batch-size": ("0", "-1", "1000000000000"),
    "--count": ("0", "1000000000000"),
    "--nfe": ("1", "100000"),
    "--steps": ("0", "1000000000", "10001"),
    "--seeds": ("0", "1000000000"),
    "--frames": ("1", "1000000000"),
    "--seed": ("1" + "0" * 30, "-1"),
    "--limit": ("0", "1" + "0" * 30),
    "--out": ("/dev/null", "/proc/nowhere/run", LONG, "a\0b", ""),
    "--strength": ("nan", "-1", "2"),
    "--mask": ("no-such.png", "/dev/null", LONG, "~nouser/x"),
    "--label": ("", LONG, "caf\udce9", "\x1b[31mred", "99", "-1", "$x_{$"),
}
"""Values that were a traceback once, or are at the edge."""


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Without pictures, and in an empty folder."""
    for name in ("overview", "sheet", "strip"):
        monkeypatch.setattr(plotting, name, lambda *given, **named: b"")
    monkeypatch.setattr("unsample.runs.edit.edit_sheet", lambda *given, **named: b"")
    monkeypatch.setenv("UNSAMPLE_MODELS", str(tmp_path / "models"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def usual(tiny, tmp_path_factory) -> dict[str, Sequence[str]]:
    """Each command with arguments that it takes, few and small."""
    from unsample import cli

    place = tmp_path_factory.mktemp("typed")
    photo = str(place / "photo.png")
    Image.radial_gradient("L").convert("RGB").resize((16, 16)).save(photo)
    model, run, steps = ("--model", str(tiny)), str(place / "run"), ("--steps", "2")
    with pytest.raises(SystemExit):
        cli.main(["invert", photo, *model, *steps, "--start", "1", "--out", run])
    (place / "set").mkdir()
    (place / "set" / "mapping_file.json").write_text("{}")
    return {
        "invert": (photo, *model, *steps),
        "demo": (*model, *steps, "--start", "1"),
        "sample": (*model, *steps, "--count", "1"),
        "reconstruct": (run,),
        "edit": (photo, *model, *steps, "--to", "bee"),
        "variations": (photo, *model, *steps, "--seeds", "1"),
        "interpolate": (photo, photo, *model, *steps, "--animation", "none", "--frames", "2"),
        "diagnose": (run,),
        "compare": (photo, *model, "--methods", "ddim", "--nfe", "4", "--start", "1"),
        "cite": (run,),
        "inspect": (str(tiny),),
        "models fetch": ("tiny-imagenet-64",),
        "edit-benchmark run": (str(place / "set"), *model, "--methods", "ddim", "--start", "1", *steps),
        "edit-benchmark make": (photo, *model, "--out", "made"),
        "experiment run": ("E1", *model, "--size", "none"),
        "experiment all": (*model, "--size", "none"),
        "experiment compare": (run, run),
    }


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command, and its options that take a value."""

    def of(command, path):
        for name, one in getattr(command, "commands", {}).items():
            yield from of(one, [*path, name])
        if not hasattr(command, "commands"):
            yield " ".join(path), [p.opts[0] for p in command.params if p.opts[0].startswith("--") and not p.is_flag]

    yield from of(typer.main.get_command(app), [])


COMMANDS = dict(commands())


def values() -> dict[tuple[str, str], list[str]]:
    """What each option of each command is given: an odd value, one after the other of all, and its share of the known ones."""
    places = [(command, option) for command, options in COMMANDS.items() for option in options]
    given = {place: [value] for place, value in zip(places, itertools.cycle(ODD))}
    for option, known in KNOWN.items():
        own = itertools.cycle([place for place in places if place[1] == option])
        for place, value in zip(own, known):  # noqa: B905
            given[place].append(value)
    return given


VALUES = values()


@pytest.fixture(autouse=True)
def served_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page would be there until it is stopped."""
    monkeypatch.setattr(importlib.import_module("unsample.web.serve"), "serve", lambda *given, **named: None)


def refused_or_done(unsample, arguments: Sequence[str]) -> str:
    """What is wrong with the outcome of a command line: "" if it is done, or refused in one line."""
    try:
        outcome = unsample(*arguments)
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    lines = outcome.err.splitlines()
    if outcome.code not in (0, 2):
        return f"exit code {outcome.code}"
    errors = [line for line in lines if line.startswith("unsample: ")]  # notes on pictures may stand above it
    if outcome.code == 2 and (errors != lines[-1:] or len(errors[0]) > 1500):
        return f"said {outcome.err[:300]!r}"
    return "control characters" if set(outcome.err) & set("\x1b\x07\u202e") else ""


@pytest.mark.parametrize("command", [command for command in COMMANDS if COMMANDS[command]])
def test_every_option_with_odd_values_is_taken_or_refused_in_one_line(unsample, usual, command, monkeypatch):
    base, wrong = [*command.split(), *usual.get(command, ())], {}
    for option in COMMANDS[command]:
        for value in VALUES[command, option]:
            place = ["--out", "out"] if option != "--out" and "--out" in COMMANDS[command] and "--out" not in base else []
            said = refused_or_done(unsample, [*base, *place, f"{option}={value}"])
            shutil.rmtree("out", ignore_errors=True)
            if said:
                wrong[f"{option}={value[:60]!r}"] = said
    assert not wrong


@pytest.mark.parametrize("command", COMMANDS)
def test_odd_arguments_are_taken_or_refused_in_one_line(unsample, usual, command):
    wrong = {}
    for value in ODD[list(COMMANDS).index(command) % 9 :: 9]:
        if said := refused_or_done(unsample, [*command.split(), *usual.get(command, ())[1:], "--", value]):
            wrong[value[:60]] = said
    assert not wrong


@pytest.mark.parametrize("content", [b"\xff\xfe\x00not UTF-8", b"x = " + b"[" * 20_000, b"", b"x = 1e999", b'id = "E1"\n'])
def test_a_recipe_of_odd_content(unsample, content):
    Path("odd.toml").write_bytes(content)
    assert "odd.toml" in one_line(unsample("experiment", "run", "odd.toml"))


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff\xfe{", b"{", b"3", b'{"names": 3}'])
@pytest.mark.parametrize("file", ["classes.json", "model_index.json", "unet/config.json"])
def test_a_model_with_odd_files(unsample, tiny, content, file):
    shutil.copytree(tiny, "model")
    (Path("model") / file).write_bytes(content)
    one_line(unsample("sample", "--model", "model", "--steps", 2, "--count", 1))


def test_a_run_with_a_manifest_nested_too_deep(unsample):
    Path("run").mkdir()
    Path("run/manifest.json").write_bytes(b'{"settings":' + b"[" * 100_000)
    one_line(unsample("diagnose", "run"))


def test_pictures_of_odd_names(unsample, usual):
    """They are drawn, and written down, under names that are safe."""
    photo, *rest = usual["invert"]
    for name in ("$x_{$.png", "a\x1b[31mb.png", "\u202egnp.png", "caf\udce9.png", "<b>&.png"):
        shutil.copy(photo, name)
        done = unsample("invert", name, *rest, "--start", 1, "--out", "run")
        assert done.code == 0, (name, done.err)
        assert json.loads(Path("run/manifest.json").read_text())["status"] == "complete"
        assert not set(done.out + done.err) & set("\x1b\u202e")
        shutil.rmtree("run")
