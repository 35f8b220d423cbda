"""`unsample edit-benchmark run --editor`, on a small random Stable Diffusion; references: the plain edit, `unsample edit`.

In double precision, where a walk alone or in a batch changes nothing that could be seen.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import unsample as us
from unsample.pictures.read import Photo, read_photo
from unsample.studies import pie_bench
from unsample.studies.pie_bench import EditCandidate, benchmark
from unsample.studies.pie_bench import report as telling
from unsample.studies.pie_bench.candidates import evaluations_of

from ..models.test_stable_diffusion import QUICK, stable_diffusion
from ..uses.test_attention import sharp
from .edit_sets import KEYS, bench_of, change, check_divergence, check_resumed, pictures, refusal, result_of

STEPS = 4
ON = "masactrl:from_step=1:from_layer=0"
OFF = {
    "masactrl": f"masactrl:from_step={STEPS}:from_layer=0",
    "stylealigned": "stylealigned:share=0:fresh=False",
    "p2p": "p2p:cross_until=0:self_until=0",
}
pytestmark = pytest.mark.usefixtures("no_sheet")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "sd"
    sharp(stable_diffusion(**QUICK)).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def model(saved):
    return us.load(str(saved), device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three entries of 16 x 16 pixels, to a prompt as long, a longer one, and one as long."""
    place = tmp_path_factory.mktemp("sets") / "small"
    photos = [pie_bench.Labelled(Photo.of(x, f"{i}"), "cat") for i, x in enumerate(pictures(3, 16))]
    pie_bench.make_small_set(photos, place, targets=["dog"], template="a [{}]")
    change(place, 1, editing_prompt="a [horse]")
    return place


@pytest.fixture
def arguments(small, saved):
    quick = ("--steps", 10, "--batch-size", 2, "--no-networks", "--dtype", "float64")
    return ("edit-benchmark", "run", small, "--model", saved, *quick, "--methods", "ddim")


@pytest.mark.parametrize(
    ("method", "forward", "use_mask"), [("ddim", "0", False), ("look-ahead", "50%", True), ("direct", "2", False)]
)
def test_switched_off_an_editor_has_the_scores_of_the_plain_edit(model, small, tmp_path, method, forward, use_mask):
    """Reference: the plain edit of as many steps; an editor that is on makes other pictures.

    That of `direct` is the plain edit by `ddim`, which is up as it is: what `direct` stored besides the latent is not used.
    """
    plain = EditCandidate("ddim" if method == "direct" else method, forward, STEPS, "plain")
    editors = {name: text for name, text in OFF.items() if name != "p2p"} | {"on": ON}
    candidates = [EditCandidate(method, forward, STEPS, name, editor=text) for name, text in editors.items()]
    scores, costs = result_of(bench_of(model, small, plain, *candidates, use_mask=use_mask), tmp_path / "run")
    assert not scores.failed
    for name in ("masactrl", "stylealigned"):
        for number in ("PSNR", "MSE", "SSIM"):
            for row in ("plain", "plain, source pasted outside"):
                theirs = scores.values[row][number]
                assert scores.values[row.replace("plain", name)][number] == pytest.approx(theirs, rel=2e-3)
    files = {name: read_photo(tmp_path / f"run/edits/{name}/{KEYS[0]}.png", (16, 16)).pixels for name in ("plain", *editors)}
    for name in ("masactrl", "stylealigned"):  # by one of 255 at most, where rounding was close
        assert float((files[name] - files["plain"]).abs().max()) < 1.01 / 127.5
    assert float((files["on"] - files["plain"]).abs().max()) > 2.01 / 127.5
    up = costs["masactrl"]["nfe_up"]
    assert costs["masactrl"]["nfe"] - up == 2 * (costs["plain"]["nfe"] - costs["plain"]["nfe_up"])


@pytest.mark.filterwarnings("ignore:the mask lets nothing change")
def test_edits_are_those_of_the_command_edit(unsample, arguments, small, saved, tmp_path):
    """Reference: `unsample edit` on the pictures of the set, with as many steps, and what it counts."""
    typed = f"{ON},p2p:cross_until=1:words=a,dog:weights=2,1,stylealigned"
    done = unsample(*arguments, "--start", 2, "--editor", typed, "--limit", 1, "--out", tmp_path / "run", "--json")
    assert done.code == 0, done.err
    costs, picture = json.loads(done.out)["cost"], pie_bench.read_layout(small).entries[0].path
    shared = ("--method", "ddim", "--start", 2, "--from", "a cat", "--to", "a dog", "--dtype", "float64")
    for index, (editor, (title, spent)) in enumerate(zip(pie_bench.listed_editors(typed), costs.items(), strict=True)):
        assert title == f"ddim, forward start 2, {editor}"
        place = tmp_path / f"edit{index}"
        steps = ("--steps", spent["steps"], "--model", saved, "--editor", editor)
        assert unsample("edit", picture, *shared, *steps, "--out", place).code == 0
        (theirs,) = place.glob("edits/*/*.png")
        (ours,) = (file for file in tmp_path.glob("run/edits/*/*.png") if editor.partition(":")[0] in file.parent.name)
        assert float((read_photo(ours, (16, 16)).pixels - read_photo(theirs, (16, 16)).pixels).abs().max()) < 1.01 / 127.5
        nfe = json.loads((place / "manifest.json").read_text())["results"]["nfe"]
        assert spent["nfe"] == nfe["up"] + nfe["edit"] + nfe["source"]


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("method", ["ddim", "look-ahead", "direct", "fixed-point:iterations=2"])
def test_an_editor_costs_what_it_is_told_to_and_uses_the_budget(model, small, tmp_path, method, guidance):
    """Reference: the evaluations that were counted; and one step more would be too many."""
    settings = (20, guidance, None, ["prompt", ON])
    candidates = pie_bench.edits_at_equal_cost(model, [method], ["0"], *settings)
    assert [way.editor for way in candidates] == ["prompt", ON]
    bench = bench_of(model, small, *candidates, guidance=guidance, limit=1)
    _, costs = result_of(bench, tmp_path / "run")
    budget = 20 * (2 if guidance == 1 else 3)
    for way in candidates:
        known = (guidance, way.editor)
        assert costs[way.title]["nfe"] == evaluations_of(model, method, "0", model.grid(way.steps), *known) <= budget
        assert evaluations_of(model, method, "0", model.grid(way.steps + 1), *known) > budget
    assert candidates[1].steps < candidates[0].steps


@pytest.mark.filterwarnings("ignore:the mask lets nothing change")
@pytest.mark.parametrize("editor", [ON, "stylealigned"])
def test_a_mask_holds_what_is_outside_of_it(model, small, tmp_path, editor):
    """Reference: the autoencoder's own picture, which a region of nothing gives everywhere; without --use-mask it does not."""
    way, found = EditCandidate("ddim", "2", STEPS, "mine", editor=editor), pie_bench.editable(model, small, 1)
    found = replace(found, entries=(replace(found.entries[0], runs=()),))
    images, _ = found.load(slice(0, 1), (16, 16))
    back = model.codec.decode(model.codec.encode(images.to(model.device)))[0].detach().float().clamp(-1, 1)
    away = {}
    for use_mask in (True, False):
        result_of(replace(bench_of(model, small, way, use_mask=use_mask), editable=found), tmp_path / f"{use_mask}")
        pixels = read_photo(tmp_path / f"{use_mask}/edits/mine/{KEYS[0]}.png", (16, 16)).pixels
        away[use_mask] = float((pixels - back).abs().max()) * 127.5
    assert away[True] < 1.01
    assert away[False] > 5


def test_an_interrupted_run_goes_on(unsample, arguments, tmp_path, monkeypatch):
    """Three entries are three calls, and one that is interrupted, in the second batch."""
    arguments = (*arguments, "--start", 2, "--editor", f"prompt,{ON}", "--out")
    check_resumed(unsample, arguments, tmp_path, monkeypatch, benchmark.SourcePicture, "edit", stop_at=3, calls_in_all=4)
    assert unsample(*arguments, tmp_path / "run").code == 0
    assert "was made with other ways" in refusal(unsample(*arguments, tmp_path / "run", "--editor", "prompt"))


def test_prompts_that_an_editor_cannot_compare_lose_their_entry_alone(unsample, arguments, tmp_path):
    """Reference: the run of `prompt` alone, whose numbers stay as they are."""
    more = ("--start", 2, "--editor", f"prompt,{OFF['p2p']}", "--out", tmp_path / "run")
    done = unsample(*arguments, *more, "--json")
    assert done.code == 0, done.err
    told, plain = json.loads(done.out), "ddim, forward start 2"
    row = f"{plain}, {OFF['p2p']}"
    (failure,) = told["failed"]
    assert (failure["key"], failure["row"]) == (KEYS[1], row)
    assert "as many tokens" in failure["reason"]
    assert list(told["values"][row]["PSNR"]) == [KEYS[0], KEYS[2]]
    assert list(told["values"][plain]["PSNR"]) == KEYS[:3]
    assert len(list((tmp_path / "run").rglob("edits/*p2p*/*.png"))) == 2


def test_an_edit_that_diverges_loses_itself_alone(model, small, tmp_path, monkeypatch):
    bench = bench_of(model, small, EditCandidate("ddim", "2", STEPS, "mine", editor=ON))
    bad = bench.editable.items[1].id
    check_divergence(
        bench, tmp_path, monkeypatch, benchmark.SourcePicture, "edit", lambda picture, *_: picture.item == bad, "mine", 1e-3
    )


REFUSED = {
    "unknown": (("--editor", "prompt,masa"), "unknown editor 'prompt,masa'"),
    "option": (("--editor", "masactrl:step=4"), "unknown option of editor 'masactrl': 'step'"),
    "layer": (("--editor", "masactrl"), "editor 'masactrl' can edit no entry: from_layer=10: this network has"),
    "words": (("--editor", "p2p:kind=refine:words=cow:weights=2"), "can edit no entry: unknown word"),
    "method": (("--editor", f"prompt,{ON}", "--methods", "ddim,edict"), "edict stores more than that: choose other methods"),
    "few": (("--editor", f"prompt,{ON}", "--steps", 2), f"too few for ddim from 0, {ON}; raise --steps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_one_line_before_any_work(unsample, arguments, tmp_path, name):
    more, says = REFUSED[name]
    assert says in refusal(unsample(*arguments, *more, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_model_without_text_attention_is_refused_before_any_work(unsample, small, tiny, tmp_path):
    arguments = ("edit-benchmark", "run", small, "--model", tiny, "--editor", f"prompt,{ON}", "--out", tmp_path / "run")
    assert "attention is edited in U-Nets of Stable Diffusion 1, 2 and XL" in refusal(unsample(*arguments))
    assert not (tmp_path / "run").exists()


def test_ways_have_settings_and_folders_of_their_own(model, small):
    """An editor written twice is one; `prompt` adds nothing to what a manifest said before; long names have own folders."""
    candidates = pie_bench.edits_at_equal_cost(model, ["ddim"], ["0"], 10, 3.0, None, ["prompt", ON, ON.replace("_", "-")])
    assert [way.settings for way in candidates] == [["ddim", "0", 10, None], ["ddim", "0", 6, None, ON]]
    long = "p2p:self_cells=1024:cross_until=0.85:self_until=0.45:kind=refine:words=a,dog:weights="
    twins = [EditCandidate("ddim", "0", 2, f"ddim, {long}{weights}", editor=long + weights) for weights in ("2,1", "1,2")]
    bench = bench_of(model, small, *candidates, *twins)
    assert len(set(bench.folders.values())) == 4
    assert bench.folders[candidates[0].title] == "edits/ddim-usual-inversion"


def test_titles_of_the_sheet_are_as_wide_as_a_picture():
    title = telling._title("ddim, forward start 2, p2p:cross_until=0.9:words=a,dog:weights=2,1, source pasted outside")
    lines = ["ddim", "forward start 2", "p2p cross_until=0.9", "words=a,dog", "weights=2,1", "source pasted outside"]
    assert title.split("\n") == lines
