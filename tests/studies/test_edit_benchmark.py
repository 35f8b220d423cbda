"""`unsample edit-benchmark`: reference, `us.edit` on the same pictures and the functions of `pie_bench` on its files."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

import unsample as us
from unsample.errors import DivergenceError, ModelError
from unsample.methods.registry import METHODS
from unsample.pictures.read import Photo, read_photo
from unsample.runs.directory import Run
from unsample.studies import pie_bench
from unsample.studies.pie_bench import benchmark
from unsample.studies.pie_bench import report as telling
from unsample.studies.pie_bench.candidates import budget_of, evaluations_of
from unsample.studies.pie_bench.metrics import eight_bit

QUICK = ("--steps", 6, "--batch-size", 2, "--no-networks")
KEYS = [f"{i:012d}" for i in range(5)]


def pictures(count):
    return eight_bit(torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1)


@pytest.fixture
def model(tiny):
    return us.load(str(tiny), device="cpu")


@pytest.fixture
def small(tmp_path):
    """Five entries of 8 x 8 pixels whose prompts are classes of the tiny model."""
    names = ("ant", "bee", "cow")
    photos = [pie_bench.Labelled(Photo.of(x, f"{i}"), names[i % 3]) for i, x in enumerate(pictures(5))]
    pie_bench.make_small_set(photos, tmp_path / "small", template="[{}]")
    path = tmp_path / "small" / "mapping_file.json"
    mapping = json.loads(path.read_text())
    path.write_text(json.dumps({key: entry | {"mask": [26, 4, 34, 4]} for key, entry in mapping.items()}))
    return tmp_path / "small"


@pytest.fixture
def no_sheet(monkeypatch):
    """Figures take most of the time."""
    monkeypatch.setattr(telling, "edit_sheet", lambda *given: b"")


@pytest.fixture
def change(small):
    """Change fields of an entry by its index."""

    def change(index, **fields):
        path = small / "mapping_file.json"
        mapping = json.loads(path.read_text())
        mapping[KEYS[index]] |= fields
        path.write_text(json.dumps(mapping))

    return change


def scores_of(place):
    return json.loads((place / "scores.json").read_text())


def test_edits_and_numbers_are_the_librarys(unsample, small, tiny, model, tmp_path):
    """Reference: `us.edit` on all entries at once, its 8-bit pictures, and `background_psnr` of them."""
    arguments = ("edit-benchmark", "run", small, "--model", tiny, *QUICK, "--methods", "ddim", "--forward", "0,2")
    done = unsample(*arguments, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    told, layout = json.loads(done.out), pie_bench.read_layout(small)
    loaded = [entry.load() for entry in layout.entries]
    images, regions = torch.cat([one[0] for one in loaded]), torch.cat([one[1] for one in loaded])
    prompts = {"source": [one.source_prompt[1:-1] for one in layout.entries]}
    prompts |= {"to": [one.target_prompt[1:-1] for one in layout.entries]}
    ids = [read_photo(entry.path, (8, 8)).id for entry in layout.entries]
    for title, start in (("ddim, usual inversion", us.FromImage()), ("ddim, forward start 2", us.ForwardNoise(steps=2))):
        steps = told["cost"][title]["steps"]
        made = us.edit(model, images, **prompts, start=start, method=us.core.ddim.DDIM(), steps=steps, items=ids)
        folder = tmp_path / "run" / "edits" / title.replace(", ", "-").replace(" ", "-")
        files = torch.stack([read_photo(folder / f"{key}.png", (8, 8)).pixels for key in KEYS])
        assert (files - made.images.clamp(-1, 1)).abs().max() < 1.01 / 127.5
        expected = pie_bench.background_psnr(images, files, regions).tolist()
        assert list(told["values"][title]["PSNR"].values()) == pytest.approx(expected, abs=1e-4)
        assert told["cost"][title]["nfe"] == made.nfe
    assert told["cost"]["ddim, usual inversion"] | {"seconds": 0} == {"steps": 6, "nfe": 18, "nfe_up": 6, "seconds": 0}
    assert set(told["rows"]["ddim, usual inversion"]) == {"PSNR", "MSE", "SSIM", "target class"}
    bees = prompts["to"].count("bee")  # the one class that the bundled classifier knows, too
    assert told["rows"]["ddim, usual inversion"]["target class"]["n"] == bees > 0
    assert told["by_type"]["change object"]["rows"] == told["rows"]
    assert {file.name for file in (tmp_path / "run").iterdir()} >= {"report.html", "overview.png", "table.md", "scores.json"}
    again = unsample(*arguments, "--out", tmp_path / "run", "--json")
    assert again.out == done.out, again.err


def test_an_interrupted_run_goes_on_and_a_complete_one_does_no_work(unsample, small, tiny, tmp_path, monkeypatch, no_sheet):
    """Reference: the run that was not interrupted, its every number and picture."""
    arguments = ("edit-benchmark", "run", small, "--model", tiny, *QUICK, "--methods", "ddim", "--out")
    assert unsample(*arguments, tmp_path / "whole").code == 0
    real, calls = benchmark.edit, []

    def failing(*args, **named):
        calls.append(1)
        if len(calls) == 4:  # the second way of the second batch
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(benchmark, "edit", failing)
    assert unsample(*arguments, tmp_path / "run").code == 130
    assert unsample(*arguments, tmp_path / "run").code == 0
    assert len(calls) == 7  # two ways, three batches, and the one that failed
    whole, resumed = scores_of(tmp_path / "whole"), scores_of(tmp_path / "run")
    assert whole | {"cost": 0} == resumed | {"cost": 0}
    for file in (tmp_path / "whole").rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "run" / file.relative_to(tmp_path / "whole")).read_bytes()
    monkeypatch.setattr(benchmark, "edit", None)
    again = unsample(*arguments, tmp_path / "run", "--by-type")
    assert again.code == 0
    assert "change object" in again.out
    other = unsample(*arguments, tmp_path / "run", "--guidance", 2)
    assert (other.code, "was made with other guidance" in other.err) == (2, True)


def test_a_class_that_the_model_does_not_know_leaves_its_entry_out(unsample, small, change, tiny, tmp_path, no_sheet):
    change(1, editing_prompt="[dog]")
    change(2, image_path="1_change_object/nowhere.png")
    done = unsample("edit-benchmark", "run", small, "--model", tiny, *QUICK, "--limit", 2, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "left out: 000000000001: unknown class 'dog'" in done.out
    assert "left out: 000000000002: no such picture" in done.out
    found = scores_of(tmp_path / "run")
    assert list(found["values"]["ddim, usual inversion"]["MSE"]) == [KEYS[0], KEYS[3]]
    for index in (0, 3, 4):
        change(index, original_prompt="a photo of a [cat]")
    done = unsample("edit-benchmark", "run", small, "--model", tiny, *QUICK, "--out", tmp_path / "none")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "all 5 are left out" in done.err
    assert not (tmp_path / "none").exists()


def test_a_mask_keeps_what_is_outside_of_it(unsample, small, tiny, tmp_path, no_sheet):
    """Reference: the source's own pixels there, which a forward start would lose."""
    arguments = ("edit-benchmark", "run", small, "--model", tiny, *QUICK, "--methods", "ddim", "--forward", 2, "--json")
    free = json.loads(unsample(*arguments, "--out", tmp_path / "free").out)
    held = json.loads(unsample(*arguments, "--use-mask", "--out", tmp_path / "held").out)
    row = "ddim, forward start 2"
    assert free["rows"][row]["MSE"]["mean"] > 0
    assert held["rows"][row]["MSE"]["mean"] == 0
    assert held["values"][f"{row}, source pasted outside"]["MSE"] == held["values"][row]["MSE"]


def bench_of(model, folder, **fields):
    ways = pie_bench.edits_at_equal_cost(model, ["ddim"], ["0"], 4, 3.0)
    return pie_bench.Benchmark(model, pie_bench.editable(model, folder), ways, **{"batch_size": 3, "networks": False} | fields)


def opened(bench, place):
    return Run.open(place, "edit-benchmark", bench.settings, bench.editable.items)


def test_an_edit_that_diverges_loses_itself_alone(model, small, tmp_path, monkeypatch, no_sheet):
    """Reference: the run in which nothing diverges."""
    bench, real, row = bench_of(model, small), benchmark.edit, "ddim, usual inversion"
    whole, _ = pie_bench.benchmarked(bench, opened(bench, tmp_path / "whole"), lambda *given: None)
    bad = bench.editable.items[1].id

    def edit(*given, items, **named):
        if bad in items:
            raise DivergenceError("left the finite numbers")
        return real(*given, items=items, **named)

    monkeypatch.setattr(benchmark, "edit", edit)
    found, _ = pie_bench.benchmarked(bench, opened(bench, tmp_path / "run"), lambda *given: None)
    (failure,) = found.failed
    assert (failure.key, failure.row) == (KEYS[1], row)
    kept = {key: value for key, value in whole.values[row]["MSE"].items() if key != KEYS[1]}
    assert found.values[row]["MSE"] == pytest.approx(kept, rel=0.02)  # alone or in a batch, to 8 bits
    assert len(found.values["source, unedited"]["MSE"]) == 5


def test_a_number_whose_network_was_missing_is_asked_for_when_a_run_goes_on(model, small, tmp_path, no_sheet):
    def missing(images, others):
        raise ModelError("needs a package")

    def stopping(images, others):
        raise KeyboardInterrupt

    def distance(images, others):
        return (images - others).abs().mean((1, 2, 3)).double()

    bench = bench_of(model, small, networks=True, batch_size=5)
    first = replace(bench, perception=pie_bench.Perception(missing, stopping, missing))
    with pytest.raises(KeyboardInterrupt):
        pie_bench.benchmarked(first, opened(first, tmp_path / "run"), lambda *given: None)
    second = replace(bench, perception=pie_bench.Perception(distance, missing, missing))
    found, _ = pie_bench.benchmarked(second, opened(second, tmp_path / "run"), lambda *given: None)
    assert set(found.reasons) == {"LPIPS", "SSIM", "CLIP whole", "CLIP edited"}  # 8 pixels are too few for SSIM
    assert found.mean("source, unedited", "structure distance").estimate == 0
    assert found.mean("ddim, usual inversion", "structure distance").estimate > 0


@pytest.mark.parametrize("method", METHODS)
def test_ways_cost_what_they_are_told_to_and_use_the_budget(toy, method):
    """Reference: the evaluations that `us.edit` counts; and one step more would be too many.

    What a reversible walk remembers at its upper end saves bdia and o-belm a move, which the cost does not know.
    """
    model, steps = toy(), 100 if method == "gradient-first" else 20
    budget = budget_of(model, steps, 3.0)
    assert budget == 3 * steps
    (way,) = pie_bench.edits_at_equal_cost(model, [method], ["2"], steps, 3.0)
    cost = evaluations_of(model, method, way.forward, model.grid(way.steps), 3.0)
    assert cost <= budget < evaluations_of(model, method, way.forward, model.grid(way.steps + 1), 3.0)
    images = torch.rand((1, 1, 4, 4), generator=torch.Generator().manual_seed(0)) - 0.5
    given = {"to": 1, "source": 0, "steps": way.steps, "start": us.methods.starts.parse_start(way.forward)}
    made = us.edit(model, images, method=us.parse_method(method), **given)
    assert made.nfe == cost - 2 * (method in ("bdia", "o-belm"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--methods", "dim"), "method"),
        (("--forward", "x"), "start"),
        (("--forward", 30), "too few"),
        (("--guidance", "nan"), "--guidance"),
        (("--steps", 1), "too few"),
        (("--spacing", "wide"), "spacing"),
        (("--methods", "edict", "--forward", 0, "--use-mask"), "choose another method"),
        (("--limit", 0), "--limit"),
    ],
)
def test_mistakes_are_one_line(unsample, small, tiny, tmp_path, more, says):
    done = unsample("edit-benchmark", "run", small, "--model", tiny, *QUICK, *more, "--out", tmp_path / "run")
    assert (done.code, len(done.err.splitlines())) == (2, 1), done.err
    assert says in done.err


def test_a_folder_that_is_none_is_one_line(unsample, tiny, tmp_path):
    done = unsample("edit-benchmark", "run", tmp_path / "nowhere", "--model", tiny, *QUICK)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "expected a folder in the layout of PIE-Bench" in done.err


def test_a_small_set_is_made_of_photographs_all_over_the_file(unsample, tiny, tmp_path, no_sheet):
    """A file sorted by label: the first three alone would be ants."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = []
    for image in pictures(12):
        buffer = io.BytesIO()
        Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(buffer, format="PNG")
        rows.append({"bytes": buffer.getvalue(), "path": None})
    parquet.write_table(pa.table({"image": rows, "label": [0] * 4 + [1] * 4 + [2] * 4}), tmp_path / "data.parquet")
    arguments = ("edit-benchmark", "make", tmp_path / "data.parquet", "--model", tiny, "--entries", 6, "--out")
    done = unsample(*arguments, tmp_path / "set")
    assert done.code == 0, done.err
    entries = pie_bench.read_layout(tmp_path / "set").entries
    assert len(entries) == 6
    assert len({entry.source_prompt for entry in entries}) > 1
    assert all(entry.target_prompt in {"[ant]", "[bee]", "[cow]"} - {entry.source_prompt} for entry in entries)
    by_name = {f"[{name}]": {i for i in range(12) if i // 4 == label} for label, name in enumerate(("ant", "bee", "cow"))}
    for entry in entries:  # with the label of its own picture
        (index,) = [i for i, image in enumerate(pictures(12)) if torch.allclose(entry.load()[0][0], image, atol=1e-5)]
        assert index in by_name[entry.source_prompt]
    assert unsample(*arguments, tmp_path / "set").code == 2
    assert unsample("edit-benchmark", "run", tmp_path / "set", "--model", tiny, *QUICK, "--out", tmp_path / "run").code == 0


def test_the_bundled_model_edits_from_class_to_class(unsample, tmp_path, no_sheet):
    """The classifier's number stands in the table; reference: `class_alignment` of the files."""
    from unsample.models.classifier import load_classifier

    image = read_photo(us.pictures.read.demo_photos()[1], (32, 32)).pixels
    pie_bench.make_small_set(
        [pie_bench.Labelled(Photo.of(image, "0"), "tabby")], tmp_path / "cat", targets=["lion"], template="[{}]"
    )
    more = ("--methods", "ddim", "--forward", 2, "--steps", 4, "--no-networks", "--json")
    done = unsample("edit-benchmark", "run", tmp_path / "cat", *more, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    column = json.loads(done.out)["values"]["ddim, forward start 2"]["target class"]
    file = read_photo(tmp_path / "run/edits/ddim-forward-start-2" / f"{KEYS[0]}.png", (32, 32)).pixels
    expected = load_classifier(device="cpu").class_alignment(file[None], ["lion"])
    assert column[KEYS[0]] == pytest.approx(float(expected), rel=1e-4)
