"""The page: what is on it, and what happens when something is pressed. It calls `session` and shows; there is no science in it."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ..core.model import Model
from ..errors import UnsampleError
from ..pictures.read import demo_photos
from . import pictures
from .session import MOST_BYTES, WAYS, Session, Stopped, Way, commands, python, ways_up_to

KEPT = 30 * 60
"""Seconds that a visitor's pictures are kept after the last use."""

EVERY = 0.15
"""Seconds between two looks at a walk."""

MOST_K = 8

TITLE = "There and back: a picture, its noise, and what is wrong with it"

INTRODUCTION = (
    "A diffusion model turns noise into pictures. Run backwards it should turn a picture into noise: grey static, the same "
    "everywhere. It does not quite: where the picture is plain (sky, a wall), too little noise comes out, and its neighbours "
    "are alike. Press the button and see it on a picture of your own, beside two ways that mend it."
)

CSS = ".gradio-container {max-width: 1180px !important; margin: auto} img {image-rendering: pixelated}"


def page(model: Model) -> gr.Blocks:
    """The page for one model."""
    sessions: dict[str, Session] = {}
    at_work = threading.Lock()

    def opened(place: str | None, steps: int, label: str | None, visitor: str) -> Session:
        if not place:
            raise gr.Error("First choose a photograph, drop one in, or paste one.", print_exception=False)
        before = sessions.get(visitor)
        if before and (str(before.place), before.steps, before.label) == (place, int(steps), label or None):
            before.stop.clear()
            return before
        try:
            sessions[visitor] = Session.open(model, place, steps=int(steps), label=label or None)
        except UnsampleError as error:
            raise gr.Error(str(error), print_exception=False) from None
        return sessions[visitor]

    def invert(place: str | None, steps: int, label: str | None, visitor: str) -> Iterator[tuple[Any, ...]]:
        """Each way in turn; what is seen while it walks, then what came out."""
        session = opened(place, steps, label, visitor)
        shown: list[Any] = [None, None, ""] * len(WAYS)
        yield (*shown, "Waiting for those before you ..." if at_work.locked() else "Starting ...")
        began = time.monotonic()
        with at_work:
            for i, way in enumerate(WAYS):
                for seen in _watched(session, way):
                    if isinstance(seen, tuple):
                        state, done, whole = seen
                        shown[3 * i] = pictures.state(state)
                        share = (i + done / whole) / len(WAYS)
                        left = (time.monotonic() - began) * (1 - share) / max(share, 1e-3)
                        yield (*shown, f"{way.name}: {done} of {whole} moves; about {left:.0f} s left")
                made = session.inverted(way)
                shown[3 * i : 3 * i + 3] = _results(session, way, 0.7)
                yield (*shown, f"{way.name}: {made.nfe} network evaluations")
        yield (*shown, f"Done in {time.monotonic() - began:.0f} s. Move the sliders below.")

    def _results(session: Session, way: Way, opacity: float) -> tuple[Any, Any, str]:
        made = session.inverted(way)
        over = pictures.variance_map(made.latent, session.pixels, opacity)
        return pictures.state(made.latent), over, pictures.words(made.diagnosis)

    def stop(visitor: str) -> str:
        if visitor in sessions:
            sessions[visitor].stop.set()
        return "Stopped. What was finished is kept."

    def maps(opacity: float, visitor: str) -> list[Any]:
        session = sessions.get(visitor)
        done = session and [session.inverted(way) for way in WAYS]
        if not session or not done:
            return [None] * len(WAYS)
        return [pictures.variance_map(made.latent, session.pixels, opacity) for made in done]

    def back(name: str, visitor: str) -> Any:
        session = sessions.get(visitor)
        if session is None:
            return None
        way = next(way for way in WAYS if way.name == name)
        return pictures.picture(session.pixels), pictures.picture(session.inverted(way).back)

    def at(share: float, visitor: str) -> list[Any]:
        session = sessions.get(visitor)
        if session is None:
            return [None] * len(WAYS)
        states = [session.inverted(way).there.states for way in WAYS]
        return [pictures.state(each[sorted(each)[round(share / 100 * (len(each) - 1))]]) for each in states]

    def of_k(k: int, visitor: str) -> tuple[Any, Any, Any, str]:
        session = sessions.get(visitor)
        if session is None:
            raise gr.Error("First invert a photograph.", print_exception=False)
        way = ways_up_to(int(k))[-1]
        with at_work:
            latent, over, said = _results(session, way, 0.7)
        return latent, over, pictures.picture(session.inverted(way).back), said

    def edit(to: str, guidance: float, strength: float, visitor: str) -> Any:
        session = sessions.get(visitor)
        if session is None or not to:
            raise gr.Error("First invert a photograph, then choose what it shall become.", print_exception=False)
        try:
            with at_work:
                return pictures.picture(session.pixels), pictures.picture(session.edited(to, guidance, strength))
        except UnsampleError as error:
            raise gr.Error(str(error), print_exception=False) from None

    def vary(share: float, visitor: str) -> list[tuple[Any, str]]:
        session = sessions.get(visitor)
        if session is None:
            raise gr.Error("First invert a photograph.", print_exception=False)
        with at_work:
            made, apart = session.varied(8, f"{share:g}%")
        return [(pictures.picture(one[None]), f"{far:.2f} away") for one, far in zip(made, apart, strict=True)]

    def take(visitor: str) -> tuple[Any, str, str]:
        session = sessions.get(visitor)
        if session is None:
            raise gr.Error("First invert a photograph.", print_exception=False)
        with at_work:
            file = _zipped(session)
        return file, commands(session, model.name), python(session, model.name)

    names = getattr(model.conditioner, "names", ())
    with gr.Blocks(title="unsample", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as made:
        visitor = gr.State(_new_visitor, time_to_live=KEPT, delete_callback=lambda key: sessions.pop(key, None))
        gr.Markdown(f"# {TITLE}\n\n{INTRODUCTION}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                photo = gr.Image(
                    type="filepath",
                    image_mode=None,
                    elem_id="photo",
                    label="A photograph",
                    height=280,
                    sources=["upload", "clipboard"],
                )
                gr.Examples([[str(place)] for place in demo_photos()], photo, label="Or one of these", examples_per_page=8)
            with gr.Column(scale=1, min_width=280):
                steps = gr.Slider(5, 100, 20, step=1, label="Steps", info="More are slower and a little better.")
                label = gr.Dropdown([("nothing in particular", ""), *((n, n) for n in names)], value="", label="It shows")
                go = gr.Button("There and back", variant="primary")
                halt = gr.Button("Stop")
                said = gr.Markdown("Nothing inverted yet.", elem_id="said")
        with gr.Row():
            columns = [_column(way) for way in WAYS]
        with gr.Row():
            opacity = gr.Slider(
                0, 1, 0.7, step=0.05, label="Map over the picture", info="Blue: too little noise. Red: too much."
            )
            level = gr.Slider(0, 100, 100, step=1, label="Back along the walk", info="0: the picture. 100: the noise.")
        with gr.Tab("Sampled back"):
            which = gr.Radio([way.name for way in WAYS], value=WAYS[-1].name, label="Way")
            before_after = gr.ImageSlider(
                format="png", label="Before and after: drag the line", interactive=False, type="numpy", max_height=340
            )
        with gr.Tab("How much noise first"):
            gr.Markdown("The mending is to begin with k moves of true noise instead of the model's own first moves.")
            k = gr.Slider(0, MOST_K, 2, step=1, label="k")
            with gr.Row():
                k_latent, k_map, k_back = (
                    gr.Image(format="png", label=name, interactive=False, type="numpy", height=280)
                    for name in ("Noise", "Map", "Sampled back")
                )
            k_said = gr.Markdown()
        with gr.Tab("Edit"):
            to = gr.Dropdown(list(names), label="Make it a") if names else gr.Textbox(label="Make it show")
            guidance = gr.Slider(1, 10, 3, step=0.5, label="Guidance")
            strength = gr.Slider(0.1, 1, 1, step=0.05, label="Strength")
            do_edit = gr.Button("Edit", variant="primary")
            edited = gr.ImageSlider(format="png", label="Before and after", interactive=False, type="numpy", max_height=340)
        with gr.Tab("Variations"):
            far = gr.Slider(4, 60, 20, step=2, label="How different, %")
            do_vary = gr.Button("Eight others like it", variant="primary")
            varied = gr.Gallery(label="Nearest first", columns=4, height=360)
        with gr.Tab("Take it along"):
            do_take = gr.Button("Prepare", variant="primary")
            file = gr.File(label="The run directory, as `unsample invert` leaves it")
            line, code = gr.Code(label="Command line", language="shell"), gr.Code(label="Python", language="python")
        outputs = [each for column in columns for each in column]
        given = [photo, steps, label, visitor]
        walk = go.click(invert, given, [*outputs, said], concurrency_limit=4, show_progress="hidden")
        walk.success(back, [which, visitor], before_after)
        halt.click(stop, visitor, said, queue=False)
        latents, overs = [column[0] for column in columns], [column[1] for column in columns]
        opacity.release(maps, [opacity, visitor], overs, show_progress="hidden")
        level.release(at, [level, visitor], latents, show_progress="hidden")
        which.change(back, [which, visitor], before_after)
        k.release(of_k, [k, visitor], [k_latent, k_map, k_back, k_said])
        do_edit.click(edit, [to, guidance, strength, visitor], edited)
        do_vary.click(vary, [far, visitor], varied)
        do_take.click(take, visitor, [file, line, code])
    return made


def _column(way: Way) -> tuple[Any, Any, Any]:
    with gr.Column(min_width=240):
        gr.Markdown(f"### {way.name}")
        latent = gr.Image(format="png", label=f"{way.name}: noise", interactive=False, type="numpy", height=280)
        over = gr.Image(format="png", label=f"{way.name}: where it is wrong", interactive=False, type="numpy", height=280)
        return latent, over, gr.Markdown()


def _new_visitor() -> str:
    import secrets

    return secrets.token_hex(16)


def _watched(session: Session, way: Way) -> Iterator[tuple[Any, int, int] | None]:
    """What a walk in another thread is at, every now and then, until it has ended."""
    seen: queue.Queue[tuple[Any, int, int]] = queue.Queue(1)
    failed: list[BaseException] = []

    def on_state(state: Any, done: int, whole: int) -> None:
        if seen.empty():
            seen.put((state, done, whole))

    def walk() -> None:
        try:
            session.inverted(way, on_state)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=walk, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(EVERY)
            if not seen.empty():
                yield seen.get()
    finally:
        if thread.is_alive():  # the visitor has gone
            session.stop.set()
            thread.join()
    for error in failed:
        if isinstance(error, Stopped):
            raise gr.Error("Stopped. What was finished is kept.", print_exception=False, duration=3)
        if isinstance(error, UnsampleError):
            raise gr.Error(str(error), print_exception=False)
        raise error


def _zipped(session: Session) -> str:
    """A run directory of the picture, as the command line makes it, in one file."""
    import shutil

    from ..runs.invert import invert_photos
    from ..runs.settings import InvertSettings

    settings = InvertSettings.of(
        session.model, steps=session.steps, label=session.label, seed=session.seed, forward=("0", WAYS[-1].start), batch_size=1
    )
    folder = Path(tempfile.mkdtemp(prefix="unsample-", dir=tempfile.gettempdir()))
    invert_photos(session.model, [session.photo], settings, folder / "run")
    return shutil.make_archive(str(folder / "unsample-run"), "zip", folder / "run")


LIMITS = {"max_file_size": MOST_BYTES, "show_error": True}
