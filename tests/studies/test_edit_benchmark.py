"""`unsample edit-benchmark`: reference, `us.edit` on the same pictures and the functions of `pie_bench` on its files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import unsample as us
from unsample.errors import ModelError
from unsample.methods.registry import METHODS
from unsample.pictures.read import Photo, read_photo
from unsample.studies import pie_bench
from unsample.studies.pie_bench import benchmark
from unsample.studies.pie_bench.candidates import budget_of, evaluations_of

from .edit_sets import (
    KEYS,
    bench_of,
    change,
    check_divergence,
    check_resumed,
    pictures,
    refusal,
    result_of,
    scores_of,
    write_parquet,
)

QUICK = ("--steps", 6, "--batch-size", 2, "--no-networks")
USUAL = "ddim, usual inversion"


@pytest.fixture
def model(tiny):
    return us.load(str(tiny), device="cpu")


@pytest.fixture
def small(tmp_path):
    """Five entries of 8 x 8 pixels whose prompts are classes of the tiny model."""
    names, place = ("ant", "bee", "cow"), tmp_path / "small"
    photos = [pie_bench.Labelled(Photo.of(x, f"{i}"), names[i % 3]) for i, x in enumerate(pictures(5, 8))]
    pie_bench.make_small_set(photos, place, template="[{}]")
    for index in range(5):
        change(place, index, mask=[26, 4, 34, 4])
    return place


@pytest.fixture
def arguments(small, tiny):
    return ("edit-benchmark", "run", small, "--model", tiny, *QUICK)


def test_edits_and_numbers_are_the_librarys(unsample, arguments, small, model, tmp_path):
    """Reference: `us.edit` on all entries at once, its 8-bit pictures, and `background_psnr` of them."""
    arguments = (*arguments, "--methods", "ddim", "--start", "0,2")
    done = unsample(*arguments, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    told, layout = json.loads(done.out), pie_bench.read_layout(small)
    loaded = [entry.load() for entry in layout.entries]
    images, regions = torch.cat([one[0] for one in loaded]), torch.cat([one[1] for one in loaded])
    prompts = {"source": [one.source_prompt[1:-1] for one in layout.entries]}
    prompts |= {"to": [one.target_prompt[1:-1] for one in layout.entries]}
    ids = [read_photo(entry.path, (8, 8)).id for entry in layout.entries]
    for title, start in ((USUAL, us.FromImage()), ("ddim, forward start 2", us.ForwardNoise(steps=2))):
        steps = told["cost"][title]["steps"]
        made = us.edit(model, images, **prompts, start=start, method=us.core.ddim.DDIM(), steps=steps, items=ids)
        folder = tmp_path / "run" / "edits" / title.replace(", ", "-").replace(" ", "-")
        files = torch.stack([read_photo(folder / f"{key}.png", (8, 8)).pixels for key in KEYS])
        assert (files - made.images.clamp(-1, 1)).abs().max() < 1.01 / 127.5
        expected = pie_bench.background_psnr(images, files, regions).tolist()
        assert list(told["values"][title]["PSNR"].values()) == pytest.approx(expected, abs=1e-4)
        assert told["cost"][title]["nfe"] == made.nfe
    assert told["cost"][USUAL] | {"seconds": 0} == {"steps": 6, "nfe": 18, "nfe_up": 6, "seconds": 0}
    assert set(told["rows"][USUAL]) == {"PSNR", "MSE", "SSIM", "target class"}
    bees = prompts["to"].count("bee")  # the one class that the bundled classifier knows, too
    assert told["rows"][USUAL]["target class"]["n"] == bees > 0
    assert told["by_type"]["change object"]["rows"] == told["rows"]
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {"report.html", "overview.png", "table.md", "scores.json"}
    again = unsample(*arguments, "--out", tmp_path / "run", "--json")
    assert again.out == done.out, again.err


def test_an_interrupted_run_goes_on_and_a_complete_one_does_no_work(unsample, arguments, tmp_path, monkeypatch, no_sheet):
    """Two candidates and three batches are six calls, and one that is interrupted, in the second batch."""
    arguments = (*arguments, "--methods", "ddim", "--out")
    check_resumed(unsample, arguments, tmp_path, monkeypatch, benchmark, "edit", stop_at=4, calls_in_all=7)
    again = unsample(*arguments, tmp_path / "run", "--by-type")
    assert again.code == 0
    assert "change object" in again.out
    assert "was made with other guidance" in refusal(unsample(*arguments, tmp_path / "run", "--guidance", 2))


def test_a_class_that_the_model_does_not_know_leaves_its_entry_out(unsample, arguments, small, tmp_path, no_sheet):
    change(small, 1, editing_prompt="[dog]")
    change(small, 2, image_path="1_change_object/nowhere.png")
    done = unsample(*arguments, "--limit", 2, "--out", tmp_path / "run")
    assert done.code == 1, done.err
    assert unsample(*arguments, "--strict", "--out", tmp_path / "strict").code == 2
    assert "left out: 000000000001: unknown class 'dog'" in done.out
    assert "left out: 000000000002: no such picture" in done.out
    found = scores_of(tmp_path / "run")
    assert list(found["values"][USUAL]["MSE"]) == [KEYS[0], KEYS[3]]
    for index in (0, 3, 4):
        change(small, index, original_prompt="a photo of a [cat]")
    assert "all 5 are left out" in refusal(unsample(*arguments, "--out", tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_mask_keeps_what_is_outside_of_it(unsample, arguments, tmp_path, no_sheet):
    """Reference: the source's own pixels there, which a forward start would lose."""
    arguments = (*arguments, "--methods", "ddim", "--start", 2, "--json")
    free = json.loads(unsample(*arguments, "--out", tmp_path / "free").out)
    held = json.loads(unsample(*arguments, "--use-mask", "--out", tmp_path / "held").out)
    row = "ddim, forward start 2"
    assert free["rows"][row]["MSE"]["mean"] > 0
    assert held["rows"][row]["MSE"]["mean"] == 0
    assert held["values"][f"{row}, source pasted outside"]["MSE"] == held["values"][row]["MSE"]


@pytest.fixture
def bench(model, small):
    """Plain DDIM in batches of three."""
    return bench_of(model, small, *pie_bench.edits_at_equal_cost(model, ["ddim"], ["0"], 4, 3.0), batch_size=3)


def test_an_edit_that_diverges_loses_itself_alone(bench, tmp_path, monkeypatch, no_sheet):
    """To 8 bits, alone or in a batch."""
    bad = bench.editable.items[1].id
    check_divergence(bench, tmp_path, monkeypatch, benchmark, "edit", lambda *_, items, **__: bad in items, USUAL, 0.02)


def test_keys_that_file_names_cannot_tell_apart_have_pictures_of_their_own(bench, small, tmp_path, no_sheet):
    path = small / "mapping_file.json"
    text = path.read_text()
    for key, new in zip(KEYS, ("a b", "a/b", "A-b", "a-c", "c" * 99), strict=True):
        text = text.replace(f'"{key}": {{', f'"{new}": {{')
    path.write_text(text)
    bench = replace(bench, editable=pie_bench.editable(bench.model, small))
    assert len(set(bench.files.values())) == len({name.casefold() for name in bench.files.values()}) == 5
    assert bench.files["a-c"] == "a-c.png"
    result_of(bench, tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").rglob("edits/*/*.png")} == set(bench.files.values())


def test_a_number_whose_network_was_missing_is_computed_when_a_run_is_resumed(bench, tmp_path, no_sheet):
    def missing(images, others):
        raise ModelError("needs a package")

    def stopping(images, others):
        raise KeyboardInterrupt

    def distance(images, others):
        return (images - others).abs().mean((1, 2, 3)).double()

    bench = replace(bench, networks=True, batch_size=5)
    first = replace(bench, perception=pie_bench.Perception(missing, stopping, missing))
    with pytest.raises(KeyboardInterrupt):
        result_of(first, tmp_path / "run")
    second = replace(bench, perception=pie_bench.Perception(distance, missing, missing))
    found, _ = result_of(second, tmp_path / "run")
    assert set(found.reasons) == {"LPIPS", "SSIM", "CLIP whole", "CLIP edited"}  # 8 pixels are too few for SSIM
    assert found.mean("source, unedited", "structure distance").estimate == 0
    assert found.mean(USUAL, "structure distance").estimate > 0


@pytest.mark.parametrize("method", METHODS)
def test_candidates_use_the_budget_and_cost_what_is_predicted(toy, method):
    """Reference: the evaluations that `us.edit` counts; and one step more would be too many.

    What a reversible walk remembers at its upper end saves bdia and o-belm a move, which the cost does not know.
    """
    model, steps = toy(), 100 if method == "gradient-first" else 20
    budget = budget_of(model, steps, 3.0)
    assert budget == 3 * steps
    (candidate,) = pie_bench.edits_at_equal_cost(model, [method], ["2"], steps, 3.0)
    cost = evaluations_of(model, method, candidate.forward, model.grid(candidate.steps), 3.0)
    assert cost <= budget < evaluations_of(model, method, candidate.forward, model.grid(candidate.steps + 1), 3.0)
    images = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(0)) - 0.5
    given = {"to": 1, "source": 0, "steps": candidate.steps, "start": us.methods.starts.parse_start(candidate.forward)}
    made = us.edit(model, images, method=us.parse_method(method), **given)
    assert made.nfe == cost - 2 * (method in ("bdia", "o-belm"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--methods", "dim"), "method"),
        (("--start", "x"), "start"),
        (("--start", 30), "too few"),
        (("--guidance", "nan"), "--guidance"),
        (("--steps", 1), "too few"),
        (("--spacing", "wide"), "spacing"),
        (("--methods", "edict", "--start", 0, "--use-mask"), "choose another method"),
        (("--limit", 0), "--limit"),
    ],
)
def test_mistakes_are_one_line(unsample, arguments, tmp_path, more, says):
    assert says in refusal(unsample(*arguments, *more, "--out", tmp_path / "run"))


def test_a_folder_that_is_none_is_one_line(unsample, tiny, tmp_path):
    done = unsample("edit-benchmark", "run", tmp_path / "nowhere", "--model", tiny, *QUICK)
    assert "expected a folder in the layout of PIE-Bench" in refusal(done)


def test_a_small_set_is_made_of_photographs_all_over_the_file(unsample, tiny, tmp_path, no_sheet):
    """A file sorted by label: the first three alone would be ants."""
    images, names = pictures(12, 8), ("ant", "bee", "cow")
    write_parquet(tmp_path / "data.parquet", images, label=[i // 4 for i in range(12)])
    arguments = ("edit-benchmark", "make", tmp_path / "data.parquet", "--model", tiny, "--entries", 6, "--out")
    done = unsample(*arguments, tmp_path / "set")
    assert done.code == 0, done.err
    entries = pie_bench.read_layout(tmp_path / "set").entries
    assert len(entries) == 6
    assert len({entry.source_prompt for entry in entries}) > 1
    assert all(entry.target_prompt in {"[ant]", "[bee]", "[cow]"} - {entry.source_prompt} for entry in entries)
    for entry in entries:  # with the label of its own picture
        (index,) = [i for i, image in enumerate(images) if torch.allclose(entry.load()[0][0], image, atol=1e-5)]
        assert entry.source_prompt == f"[{names[index // 4]}]"
    assert unsample(*arguments, tmp_path / "set").code == 2
    assert unsample("edit-benchmark", "run", tmp_path / "set", "--model", tiny, *QUICK, "--out", tmp_path / "run").code == 0


def test_the_bundled_model_edits_from_class_to_class(unsample, tmp_path, no_sheet):
    """The classifier's number stands in the table; reference: `class_alignment` of the files."""
    from unsample.models.classifier import load_classifier

    image = read_photo(us.pictures.read.demo_photos()[1], (32, 32)).pixels
    pie_bench.make_small_set(
        [pie_bench.Labelled(Photo.of(image, "0"), "tabby")], tmp_path / "cat", targets=["lion"], template="[{}]"
    )
    more = ("--methods", "ddim", "--start", 2, "--steps", 4, "--no-networks", "--json")
    done = unsample("edit-benchmark", "run", tmp_path / "cat", *more, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    column = json.loads(done.out)["values"]["ddim, forward start 2"]["target class"]
    file = read_photo(tmp_path / "run/edits/ddim-forward-start-2" / f"{KEYS[0]}.png", (32, 32)).pixels
    expected = load_classifier(device="cpu").class_alignment(file[None], ["lion"])
    assert column[KEYS[0]] == pytest.approx(float(expected), rel=1e-4)
