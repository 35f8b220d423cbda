"""The page: what is on it, and which action each part calls; `actions` has what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from ..core.model import Model
from ..methods.registry import METHODS
from ..pictures.read import demo_photos
from .actions import OPACITY, Actions, frame
from .session import MOST_BYTES, WAYS
from .visitors import KEPT

MOST_K = 8

FIRST = "sunset"
"""The photograph that is there at first: a sky, where the flaw is plain to see."""

COMPARED = ("ddim", "fixed-point", "look-ahead")
"""Methods that are ticked at first."""

INTRODUCTION = """# There and back: a picture, its noise, and what is wrong with it

A diffusion model makes pictures out of noise. Run backwards, it should turn a picture into noise: static, the same everywhere.
It does not quite. **Where a picture is plain (sky, a wall), too little noise comes out.** Press the button to see it, beside
two ways that mend it. Nothing leaves the computer that this page runs on."""

PATIENCE = "With the bundled model the first picture takes a few seconds on two idle cores."

EXPLAINED = """**First the noise that each way finds.** It should look like true noise, with no trace of the picture.
**Below it, where it is wrong.** Blue: too little noise. Red: too much. White: as it should be."""

CSS, JS = ((Path(__file__).parent / f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))

LAUNCH = {"max_file_size": MOST_BYTES, "show_error": True, "footer_links": [], "css": CSS, "js": JS}
"""What the page is launched with besides its address."""

ONE_BY_ONE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
"""Of everything that asks the network: one at a time, the others in the queue."""


def page(model: Model, folder: Path) -> gr.Blocks:
    """The page for one model; files of visitors are in `folder`."""
    do = Actions(model, folder)
    with gr.Blocks(title="unsample", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as made:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(min_width=280):
                photo = _upload("Your picture", "photo", next(str(place) for place in demo_photos() if place.stem == FIRST))
            with gr.Column(min_width=280):
                steps = gr.Slider(5, 100, 20, step=1, label="Steps", info="More take longer and lead back more closely.")
                label = _condition(model, "The picture shows", "nothing in particular")
                with gr.Row():
                    go = gr.Button("There and back", variant="primary", elem_id="go", scale=2)
                    halt = gr.Button("Stop", elem_id="stop", min_width=80)
                said = gr.Markdown(
                    f"Model: {model.name}. {PATIENCE}",
                    elem_id="said",
                )
        with gr.Column(visible=False, elem_id="results") as results:
            gr.Markdown(EXPLAINED)
            with gr.Row():
                with gr.Column(min_width=150, elem_classes="way"):
                    gr.Markdown("## What should come out")
                    noise, plain = _picture("True noise"), _picture("Plain areas")
                columns = [_column(way.name) for way in WAYS]
            level = gr.Slider(0, 100, 100, step=1, label="Back along the walk, %", info="0: the picture. 100: the noise.")
            opacity = gr.Slider(0, 1, OPACITY, step=0.05, label="Maps over the picture", info="0: the picture. 1: the map.")
            with gr.Tabs():
                which, before_after = _way_back(do)
                _noise_first(do)
                drawn = _edit(do, model)
                _variations(do)
                _between(do)
                _compare(do)
                _take(do)
        photo.change(do.choose, photo, [photo, said], show_progress="hidden")
        outputs = [said, results, plain, noise, *(each for column in columns for each in column)]
        walk = go.click(do.wait, None, said, queue=False, show_progress="hidden").then(
            do.invert, [photo, steps, label], outputs, show_progress="minimal", show_progress_on=said, **ONE_BY_ONE
        )
        walk.then(do.back, which, before_after, show_progress="hidden").then(do.canvas, None, drawn, show_progress="hidden")
        halt.click(do.stop, None, said, queue=False, show_progress="hidden")
        seen: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}
        opacity.input(do.maps, opacity, [column[1] for column in columns], **seen)
        level.input(do.at, level, [column[0] for column in columns], **seen)
        made.unload(do.leave)
    return made


def _upload(label: str, name: str, value: str | None = None) -> gr.Image:
    """Where a picture is dropped, pasted or chosen, and those that ship."""
    kinds: Any = ["upload", "clipboard"]
    upload = gr.Image(
        value, type="filepath", image_mode=None, elem_id=name, label=label, height=260, sources=kinds, buttons=[]
    )
    # Gradio would open the file, whatever its size; that it is in a folder of Gradio's own is seen before
    upload.preprocess = lambda payload: payload and str(payload.path)
    shipped = [[str(place)] for place in demo_photos()]
    gr.Examples(shipped, upload, label="Or one of these", examples_per_page=8, elem_id=f"{name}-examples")
    return upload


def _condition(model: Model, label: str, none: str | None = None) -> Any:
    """A class by name, or a prompt."""
    names = getattr(model.conditioner, "names", ())
    if not names:
        return gr.Textbox(label=label, placeholder=none)
    choices = [*([(none, "")] if none else []), *((each, each) for each in names)]
    return gr.Dropdown(choices, value="" if none else None, label=label)


def _picture(label: str, **more: Any) -> gr.Image:
    return gr.Image(format="png", label=label, interactive=False, type="numpy", buttons=["download"], **more)


def _before_after() -> gr.ImageSlider:
    return gr.ImageSlider(
        format="png", label="Before and after: drag the line", interactive=False, type="numpy", max_height=360
    )


def _column(name: str) -> tuple[Any, Any, Any]:
    with gr.Column(min_width=150, elem_classes="way"):
        gr.Markdown(f"## {name}")
        return _picture(f"{name}: noise"), _picture(f"{name}: map"), gr.Markdown()


def _way_back(do: Actions) -> tuple[Any, Any]:
    with gr.Tab("Way back"):
        gr.Markdown(
            "Sampled from the noise again. Left of the line: your picture as the model sees it; right: what came back."
        )
        which = gr.Radio([way.name for way in WAYS], value=WAYS[-1].name, label="From the noise of")
        shown = _before_after()
        which.change(do.back, which, shown, show_progress="hidden")
    return which, shown


def _noise_first(do: Actions) -> None:
    with gr.Tab("True noise first"):
        gr.Markdown("The mending is to begin with true noise in place of the model's own first moves: so many of them.")
        with gr.Row():
            k = gr.Slider(0, MOST_K, 2, step=1, label="k, moves of true noise", elem_id="k")
            method = gr.Dropdown(["auto", *METHODS], value="auto", label="Method", info="auto is ours, ddim the usual one.")
        with gr.Row():
            shown = [_picture(name, min_width=150) for name in ("Noise", "Map", "Sampled back")]
        said = gr.Markdown()
        for each in (k.release, k.input, method.change):
            each(do.of_k, [k, method], [*shown, said], trigger_mode="always_last", show_progress="minimal", **ONE_BY_ONE)


def _edit(do: Actions, model: Model) -> Any:
    with gr.Tab("Edit"):
        gr.Markdown("The same noise, sampled as something else. To change a part alone, draw over it; else draw nothing.")
        with gr.Row():
            with gr.Column(min_width=280):
                to = _condition(model, "Make it a")
                guidance = gr.Slider(1, 10, 3, step=0.5, label="Guidance", info="More: more of what it shall be.")
                strength = gr.Slider(0.1, 1, 1, step=0.05, label="Strength", info="Less: more of the picture stays.")
                press = gr.Button("Edit", variant="primary")
            with gr.Column(min_width=280):
                drawn = gr.ImageEditor(
                    type="numpy",
                    label="Only here",
                    sources=[],
                    transforms=[],
                    layers=False,
                    brush=gr.Brush(default_size=40, colors=["#ff0000"], color_mode="fixed"),
                    canvas_size=(320, 320),
                    height=420,
                    buttons=[],
                )
            with gr.Column(min_width=280):
                shown = _before_after()
        press.click(do.edit, [to, guidance, strength, drawn], shown, show_progress="minimal", **ONE_BY_ONE)
    return drawn


def _variations(do: Actions) -> None:
    with gr.Tab("Variations"):
        gr.Markdown("Other draws of the noise that comes first: pictures like yours, the nearest first.")
        share = gr.Slider(4, 60, 20, step=2, label="How much noise first, %", info="More: more different.")
        press = gr.Button("Make eight", variant="primary")
        shown = gr.Gallery(label="Variations, nearest first", columns=4, object_fit="contain", format="png")
        press.click(do.vary, share, shown, show_progress="minimal", **ONE_BY_ONE)


def _between(do: Actions) -> None:
    with gr.Tab("Between two"):
        with gr.Row():
            with gr.Column(min_width=280):
                other = _upload("Another picture", "other")
            with gr.Column(min_width=280):
                count = gr.Slider(3, 17, 9, step=2, label="Pictures on the way")
                press = gr.Button("Make them", variant="primary")
                share = gr.Slider(0, 100, 50, step=1, label="Along the way, %", info="0: your picture. 100: the other.")
                shown, frames = _picture("Between"), gr.State([], time_to_live=KEPT)
        press.click(do.between, [other, count], [shown, frames], show_progress="minimal", **ONE_BY_ONE).success(
            lambda: 50, None, share, show_progress="hidden"
        )
        share.input(frame, [share, frames], shown, show_progress="hidden", trigger_mode="always_last")


def _compare(do: Actions) -> None:
    with gr.Tab("Compare methods"):
        gr.Markdown("Each from the picture itself and from true noise first, with the same number of network evaluations.")
        methods = gr.CheckboxGroup(list(METHODS), value=list(COMPARED), label="Methods")
        nfe = gr.Slider(4, 100, 20, step=1, label="Network evaluations for each, up")
        press = gr.Button("Compare", variant="primary")
        plane = _picture("Across: how near to true noise; up: how well it leads back", elem_classes="plane")
        one = gr.Dropdown([], label="Show the pictures of", visible=False)
        ways = gr.State([], time_to_live=KEPT)
        with gr.Row():
            shown = [_picture(name, min_width=150) for name in ("Noise", "Map", "Sampled back")]
        said = gr.Markdown()
        press.click(do.compare, [methods, nfe], [plane, one, ways], show_progress="minimal", **ONE_BY_ONE)
        one.change(do.compared, [one, ways], [*shown, said], show_progress="minimal", **ONE_BY_ONE)


def _take(do: Actions) -> None:
    with gr.Tab("Take it along"):
        gr.Markdown("The run directory with pictures and report, as `unsample` reads it, and what makes exactly this.")
        press = gr.Button("Prepare", variant="primary")
        file = gr.File(label="The run directory, zipped")
        command, python = gr.Code(label="Command line", language="shell"), gr.Code(label="Python", language="python")
        press.click(do.take, None, [file, command, python], show_progress="minimal", **ONE_BY_ONE)
