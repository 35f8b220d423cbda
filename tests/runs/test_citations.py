"""`unsample cite`: the BibTeX is whole, the registry agrees with it, and a run names exactly what ran."""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

from unsample import errors
from unsample.core import spacing
from unsample.core.ddim import DDIM
from unsample.methods import corrected
from unsample.methods import registry as methods
from unsample.models import cards
from unsample.pictures.read import demo_photos
from unsample.runs import citations as references
from unsample.runs.manifest import Manifest

ROOT = Path(__file__).parents[2]
REQUIRED = {
    "article": {"title", "author", "journal", "year"},
    "book": {"title", "author", "publisher", "year"},
    "inproceedings": {"title", "author", "booktitle", "year"},
    "misc": {"title", "author"},
}
OPTIONAL = {"volume", "number", "pages", "edition", "address", "howpublished", "note", "eprint", "archivePrefix"}


def braced(text: str, start: int) -> int:
    """The index after the brace that closes the one at `start`."""
    depth = 0
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise ValueError(f"a brace is never closed: {text[start : start + 60]!r}")


def parse(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Key -> (type, fields) of BibTeX, strictly: every value in braces, commas between fields, nothing else around."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    index = 0
    while (at := text.find("@", index)) >= 0:
        outside = text[index:at]
        head = re.compile(r"@([a-z]+)(?=\{)").match(text, at)
        if head is None or re.search(r"[{}]", outside):
            raise ValueError(f"expected an entry: {text[at - 20 : at + 40]!r}")
        index = braced(text, head.end())
        key, body = re.fullmatch(r"\{([a-z0-9]+),(.*)\}", text[head.end() : index], re.S).groups()
        if key in found:
            raise ValueError(f"the key {key} is there twice")
        found[key] = (head[1], read_fields(body))
    if re.search(r"[{}]", text[index:]):
        raise ValueError(f"braces after the last entry: {text[index:]!r}")
    return found


def read_fields(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    index, name = 0, re.compile(r"\s*([A-Za-z]+) = (?=\{)")
    while body[index:].strip():
        head = name.match(body, index)
        if head is None or head[1] in found:
            raise ValueError(f"expected a new field: {body[index : index + 60]!r}")
        end = braced(body, head.end())
        found[head[1]] = body[head.end() + 1 : end - 1]
        comma = re.compile(r",(?=\s*\S)|\s*$").match(body, end)
        if comma is None:
            raise ValueError(f"expected a comma between fields: {body[end : end + 60]!r}")
        index = comma.end()
    return found


TEXT = (files("unsample.runs") / "references.bib").read_text(encoding="ascii")
ENTRIES = parse(TEXT)


def family(author: str) -> str:
    """The first author's family name."""
    return author.split(" and ")[0].partition(",")[0]


@pytest.mark.parametrize(
    "wrong",
    [
        "@misc{a, title = {A}",
        "@misc{a, title = {A}} @misc{a, title = {B}}",
        "@misc{a, title = {A} year = {2020}}",
        "@misc{a, title = {A}, title = {B}}",
        "@misc{a, title = A}",
        "@misc{a, title = {A}}}",
        "% user@example.org\n@misc{a, title = {A}}",
    ],
)
def test_the_parser_of_these_tests_is_strict(wrong):
    with pytest.raises(ValueError):
        parse(wrong)


@pytest.mark.parametrize("key", ENTRIES)
def test_entry_is_whole(key):
    kind, found = ENTRIES[key]
    assert REQUIRED[kind] <= set(found) <= REQUIRED[kind] | OPTIONAL | {"year"}
    assert all(value.strip() == value != "" for value in found.values())
    assert "others" not in found["author"]
    assert ("eprint" in found) == ("archivePrefix" in found)
    assert re.fullmatch(r"\d{4}\.\d{5}(v\d)?", found.get("eprint", "2000.00000"))
    assert re.fullmatch(r"\d+--\d+", found.get("pages", "1--2"))
    if key != references.SOFTWARE:
        names = found["author"].split(" and ")
        assert all(re.fullmatch(r"[^,]+, [^,]+", name) for name in names)
        assert re.fullmatch(r"(19|20)\d\d", found["year"])
        assert key.startswith(re.sub(r"\W", "", family(found["author"]).split("-")[0]).lower() + found["year"])


def test_no_arxiv_id_twice():
    eprints = [found["eprint"] for _, found in ENTRIES.values() if "eprint" in found]
    assert len(eprints) == len(set(eprints)) > 20


def test_the_library_reads_the_same_entries():
    known = references.entries()
    assert list(known) == list(ENTRIES)
    assert {key: parse(text)[key] for key, text in known.items()} == ENTRIES


def test_the_software_is_that_of_the_citation_file():
    citation = (ROOT / "CITATION.cff").read_text()
    stated = dict(re.findall(r'^(title|version): "?([^"\n]+)', citation, re.M))
    _, found = ENTRIES["unsample"]
    assert found["title"].replace("{", "").replace("}", "") == stated["title"]
    assert found["author"].strip("{}") == re.search(r"- name: (.+)", citation)[1]
    assert found["note"] == f"Software, version {stated['version']}"
    assert stated["version"] == version("unsample")


def test_the_paper_is_that_of_the_citation_file():
    citation = (ROOT / "CITATION.cff").read_text().partition("preferred-citation")[2]
    _, found = ENTRIES[references.FORWARD]
    assert found["title"] in citation
    plain = re.sub(r"\{\\L\}", "Ł", re.sub(r"\{\\'n\}", "ń", found["author"]))
    stated = zip(re.findall("family-names: (.+)", citation), re.findall("given-names: (.+)", citation), strict=True)
    assert plain.split(" and ") == [f"{family}, {given}" for family, given in stated]
    assert f"arXiv:{found['eprint']}" in citation
    assert f"year: {found['year']}" in citation


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_has_references_that_exist(name):
    method = methods.METHODS[name]
    assert method.references or method.source.startswith("ours"), f"{name} has no references and does not say 'ours'"
    assert set(method.references) <= set(ENTRIES)
    assert method.source.startswith("ours") or "unsample" not in method.references


@pytest.mark.parametrize("name", methods.METHODS)
def test_short_sources_agree_with_the_entries(name):
    """Each "A et al. 2024", "A and B 2021" and "arXiv 2606.03111" of a source is one of the method's entries."""
    method = methods.METHODS[name]
    known = [ENTRIES[key][1] for key in method.references]
    stated = {(family(found["author"]), found.get("year")): found["author"] for found in known}
    people = r"([A-Z][\w-]+) (et al\.|and (?:De la )?[A-Z][\w-]+) (\d{4})"
    for first, more, year in re.findall(people, method.source):
        authors = stated[first, year].split(" and ")
        assert len(authors) > 2 if more == "et al." else authors[1].partition(",")[0] == more.removeprefix("and ")
    for eprint in re.findall(r"arXiv (\d{4}\.\d{5})", method.source):
        assert eprint in {found.get("eprint") for found in known}


def test_tables_of_the_library_name_what_exists():
    assert set(references.SPACINGS) <= set(spacing.SPACINGS)
    assert set(references.MODELS) == {name for name, card in cards().items() if not card.source}
    used = {*references.SPACINGS.values(), *references.EDITORS.values(), *sum(references.MODELS.values(), ())}
    used |= {references.FORWARD, references.SAMPLING, references.GUIDANCE, references.NEGATIVE, references.PINNED}
    assert used | {references.PART_OF_THE_WAY, references.DIFFERENCE_MASK} <= set(ENTRIES)


def manifest(command: str = "invert", **settings) -> Manifest:
    made = {"model": "tiny-imagenet-32-v", "steps": 50, "spacing": None, "guidance": 1.0, **settings}
    return Manifest(command=command, created="now", settings=made, versions={"unsample": "9.8.7"}, items=[])


MODEL = ["ho2020ddpm", "salimans2022progressive", "le2015tiny"]
DDIM_UP = ["song2021ddim", "dhariwal2021beat"]
PAPER = "staniszewski2026there"
EDITED = {
    **{"method": "ddim", "forward": ["0"], "strength": 1.0, "edit_guidance": 3.0},
    **{"negative": "ant", "mask": None, "editor": "prompt"},
}


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"method": "ddim", "forward": ["0"]}, DDIM_UP),
        ({"method": "ddim", "forward": ["4%"]}, [PAPER, *DDIM_UP]),
        ({"method": "ddim", "forward": ["0", "2"]}, [PAPER, *DDIM_UP]),
        ({"method": "ddim", "forward": ["0%", "sigma=0"]}, DDIM_UP),
        ({"method": "heun", "forward": ["sigma=0.1"]}, [PAPER, "karras2022edm", "song2021ddim"]),
        ({"method": "heun", "forward": ["2@plain"]}, [PAPER, "karras2022edm", "song2021ddim"]),
        ({"method": "edict", "forward": ["0"]}, ["wallace2023edict"]),
        ({"method": "direct", "forward": ["0"]}, ["ju2024pnp", *DDIM_UP]),
        ({"method": "direct:method=damped/iterations=3", "forward": ["0"]}, ["ju2024pnp", "hong2024exact", "song2021ddim"]),
        ({"method": "exact", "forward": ["2"]}, [PAPER, "hairer1993ode", "song2021ddim"]),
        ({"method": "exact:method=bdia", "forward": ["2"]}, [PAPER, "zhang2024bdia"]),
        ({"method": "ddim", "forward": ["0"], "spacing": "trdi:exponent=1.1"}, [*DDIM_UP, "sun2026trdi"]),
        ({"method": "ddim", "forward": ["0"], "spacing": "karras"}, [*DDIM_UP, "karras2022edm"]),
        ({"method": "heun", "forward": ["0"], "spacing": "karras"}, ["karras2022edm", "song2021ddim"]),
        ({"method": "ddim", "forward": ["0"], "spacing": "trailing"}, DDIM_UP),
        ({"method": "ddim", "forward": ["0"], "guidance": 2.5}, [*DDIM_UP, "ho2022cfg"]),
        ({"command": "sample"}, ["song2021ddim"]),
        ({"command": "edit", **EDITED}, [*DDIM_UP, "ho2022cfg", "miyake2023negative"]),
        ({"command": "edit", **EDITED, "negative": None}, [*DDIM_UP, "ho2022cfg"]),
        ({"command": "edit", **EDITED, "edit_guidance": 1.0}, DDIM_UP),
        ({"command": "edit", **EDITED, "edit_guidance": 1.0, "mask": "0123abcd"}, DDIM_UP),
        ({"command": "edit", **EDITED, "edit_guidance": 1.0, "mask": "auto"}, [*DDIM_UP, "couairon2023diffedit"]),
        ({"command": "edit", **EDITED, "edit_guidance": 1.0, "strength": 0.6}, [*DDIM_UP, "meng2022sdedit"]),
        *(
            ({"command": "edit", **EDITED, "edit_guidance": 1.0, "editor": editor}, [*DDIM_UP, key, "ju2024pnp"])
            for editor, key in (
                ("masactrl:from_step=2", "cao2023masactrl"),
                ("stylealigned", "hertz2024stylealigned"),
                ("p2p:kind=refine", "hertz2023prompt"),
            )
        ),
        (
            {"command": "edit-benchmark", "ways": [["ddim", "0", 9, None], ["heun", "2", 4, "karras", "p2p:kind=refine"]]},
            [*DDIM_UP, PAPER, "karras2022edm", "hertz2023prompt", "ju2024pnp"],
        ),
        ({"command": "variations", "method": "ddim", "forward": ["2"], "strength": None}, [PAPER, *DDIM_UP, "meng2022sdedit"]),
        ({"command": "sample", "guidance": 0.0, "spacing": "log-snr"}, ["song2021ddim", "ho2022cfg"]),
        ({"command": "sample", "method": None}, ["song2021ddim"]),
        ({"command": "reconstruct", "source": "2 of 0123abcd"}, ["song2021ddim"]),
        ({"command": "reconstruct", "source": "2 of 0123abcd", "method": None}, ["song2021ddim"]),
        ({"command": "reconstruct", "source": "2 of 0123abcd", "method": "bdia"}, ["zhang2024bdia"]),
        ({"command": "reconstruct", "source": "2 of 0123abcd", "method": "direct"}, ["ju2024pnp", *DDIM_UP]),
    ],
)
def test_keys_are_exactly_those_of_what_ran(settings, keys):
    assert list(references.keys_of_run(manifest(**settings))) == ["unsample", *keys, *MODEL]


def test_a_start_that_is_not_used_is_not_cited(monkeypatch):
    """A method without an inversion has no use for a start."""

    @dataclasses.dataclass(frozen=True)
    class Down(corrected.Direct):
        inversion = None
        sampler = DDIM()

    monkeypatch.setitem(methods.METHODS, "down", methods.Method(Down, "corrected", "ours", ("unsample",)))
    assert PAPER not in references.keys_of_run(manifest(method="down", forward=["4%"]))


def test_what_cannot_be_known_is_said():
    assert references.gaps(manifest(method="ddim", forward=["0"])) == ()
    assert "google/ddpm" in references.gaps(manifest(model="google/ddpm-church-256"))[0]
    (note,) = references.gaps(manifest("reconstruct", source="2 of 0123abcd"))
    assert "does not name its method; cite that run as well" in note
    (note,) = references.gaps(manifest("reconstruct", source="2 of 0123abcd", method="bdia"))
    assert note == "the latents came from another run; cite that run as well"
    assert references.keys_of_run(manifest("sample", model="elsewhere")) == ("unsample", "song2021ddim")


@pytest.mark.parametrize("name", methods.METHODS)
def test_every_method_can_be_cited(name):
    keys = references.keys_of_method(name)
    assert keys[0] == "unsample"
    assert set(methods.METHODS[name].references) <= set(keys)
    assert list(parse(references.bibtex(keys))) == list(keys)


def test_the_version_is_that_of_the_run():
    here, there = references.bibtex(["unsample"]), references.bibtex(["unsample"], "9.8.7")
    assert here == references.entries()["unsample"]
    assert there == here.replace(version("unsample"), "9.8.7") != here


def test_an_unknown_key_is_refused():
    with pytest.raises(errors.UnknownNameError, match="song2021ddim"):
        references.bibtex(["song2021ddin"])


def test_a_run_of_the_command_line(unsample, tmp_path):
    place = tmp_path / "run"
    made = unsample(
        "invert", demo_photos()[0], "--steps", 4, "--method", "exact:method=bdia", "--spacing", "karras", "--out", place
    )
    assert made.code == 0, made.err
    keys = ["unsample", PAPER, "zhang2024bdia", "karras2022edm", *MODEL]
    plain, read = unsample("cite", place), json.loads(unsample("cite", place, "--json").out)
    assert plain.code == 0
    assert plain.err == ""
    assert list(parse(plain.out)) == keys == read["keys"]
    assert plain.out == read["bibtex"] + "\n"
    assert f"version {version('unsample')}" in plain.out


@pytest.mark.parametrize(
    ("method", "more", "named", "keys"),
    [
        ("bdia", (), "bdia", ["zhang2024bdia"]),
        ("direct", (), "direct", ["ju2024pnp", *DDIM_UP]),
        ("bdia", ("--steps", 5), None, ["song2021ddim"]),
        ("look-ahead", (), None, ["song2021ddim"]),
    ],
)
def test_a_run_that_samples_back_with_the_method_cites_it(unsample, tmp_path, method, more, named, keys):
    up = ("--steps", 4, "--start", "1", "--method", method)
    assert unsample("invert", demo_photos()[0], *up, "--out", tmp_path / "run").code == 0
    assert unsample("reconstruct", tmp_path / "run", *more, "--out", tmp_path / "back").code == 0
    assert json.loads((tmp_path / "back" / "manifest.json").read_text())["settings"]["method"] == named
    done = unsample("cite", tmp_path / "back")
    assert list(parse(done.out)) == ["unsample", *keys, *MODEL]
    assert ("does not name its method" in done.err) == (named is None)
    assert "cite that run as well" in done.err


def test_notes_go_to_standard_error(unsample, tmp_path):
    (tmp_path / "manifest.json").write_text(manifest("sample", model="elsewhere").text)
    done = unsample("cite", tmp_path)
    assert done.code == 0
    assert "elsewhere" in done.err
    assert list(parse(done.out)) == ["unsample", "song2021ddim"]
    assert "version 9.8.7" in done.out


def test_a_method_without_a_run(unsample):
    done = unsample("cite", "--method", "averaged:iterations=2")
    assert list(parse(done.out)) == ["unsample", "pan2023aidi", "song2021ddim"]
    assert unsample("cite", "--method", "auto").out == unsample("cite", "--method", methods.AUTO).out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "given neither"),
        (("run", "--method", "ddim"), "given both"),
        (("no-such-run",), "no run in"),
        (("--method", "dimm"), "did you mean 'ddim'"),
        (("--method", "damped:iterations"), "name=value"),
    ],
)
def test_bad_arguments(unsample, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    done = unsample("cite", *arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert len(done.err.strip().splitlines()) == 1
