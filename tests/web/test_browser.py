"""The page in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import unsample as us
from unsample.pictures.read import demo_photos

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
    pytest.mark.filterwarnings("default"),  # of Gradio's own
]

SLOW = 60_000
"""Milliseconds that a machine may take for a few steps of a small model."""

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = {
    f"{size['width']} {scheme}": {"viewport": size, "color_scheme": scheme}
    for size in (WIDE, NARROW)
    for scheme in ("light", "dark")
}


@pytest.fixture(scope="module")
def address():
    """The page of `unsample web`, of a model of 16x16 pixels."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "unsample", "web", "--no-browser", "--size", "16x16", "--device", "cpu"]
    with subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.PIPE, text=True) as server:
        said = server.stdout.readline()
        assert said.startswith(f"http://127.0.0.1:{port}/"), said
        yield said.split()[0]
        server.terminate()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as made:
        opened = made.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page for another visitor; nothing is asked for from elsewhere."""
    pages, elsewhere = [], []

    def opened(**look):
        page = browser.new_page(**(look or {"viewport": WIDE}))
        page.set_default_timeout(SLOW)
        page.on("request", lambda each: each.url.startswith((address, "data:", "blob:")) or elsewhere.append(each.url))
        pages.append(page)
        return ready(page, address)

    yield opened
    assert elsewhere == []
    for page in pages:
        page.close()


def ready(page, address, steps=5):
    page.goto(address)
    page.locator("#photo img").wait_for()
    page.get_by_label("number input for Steps").fill(str(steps))
    return page


def drop(page, place):
    """As the mouse would."""
    page.locator("#photo input[type=file]").set_input_files(place)


def go(page):
    page.get_by_role("button", name="There and back").click()


def inverted(page):
    go(page)
    page.locator("#said", has_text="Done in").wait_for()
    return page


def open_tab(page, name):
    """Also where some are behind the three dots."""
    page.get_by_role("tab", name=name).click()


@pytest.mark.parametrize("look", LOOKS)
def test_there_and_back(visit, look):
    """Pictures and numbers are there, have names, and fit the window."""
    page = inverted(visit(**LOOKS[look]))
    for way in ("Usual inversion", "The paper's", "Ours"):
        page.get_by_role("img", name=f"{way}: noise").wait_for()
    assert page.get_by_text("true noise 1.00").count() == 3
    assert page.evaluate("[...document.images].filter(image => !image.alt).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= LOOKS[look]["viewport"]["width"]


def test_what_is_made_of_the_noise(visit):
    """Sliders, edit, variations and comparison."""
    page = inverted(visit())
    noise = page.get_by_role("img", name="Ours: noise")
    before = noise.evaluate("image => image.src")
    page.get_by_label("range slider for Back along the walk, %").fill("0")
    seen = "before => [...document.images].find(image => image.alt === 'Ours: noise').src !== before"
    page.wait_for_function(seen, arg=before)
    open_tab(page, "True noise first")
    page.locator("#k input[type=range]").fill("1")
    page.get_by_role("img", name="Sampled back").first.wait_for()
    open_tab(page, "Edit")
    page.get_by_label("Make it a").first.click()
    page.keyboard.type("goldfish")
    page.get_by_role("option", name="goldfish").click()
    page.get_by_role("button", name="Edit", exact=True).click()
    page.locator("[role=tabpanel]:visible img[alt^='Before and after']").first.wait_for()
    open_tab(page, "Variations")
    page.get_by_role("button", name="Make eight").click()
    page.get_by_text("distance").nth(7).wait_for()
    open_tab(page, "Compare methods")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("img", name="Across").wait_for()
    page.get_by_role("img", name="Sampled back").last.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visit, scheme):
    """Contrast, names and roles, on every tab."""
    axe = Path(pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed").__file__)
    page = inverted(visit(viewport=WIDE, color_scheme=scheme))
    page.evaluate((axe.parent / "axe.min.js").read_text())
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.locator("[role=tabpanel]:visible").first.wait_for()
        page.wait_for_timeout(500)  # colours fade
        found = page.evaluate("axe.run()")["violations"]
        assert [(one["id"], [node["target"] for node in one["nodes"]]) for one in found] == []


def test_the_keyboard_alone(visit):
    """From the top of the page to the button, and on to the sliders."""
    page = visit()
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.id"))
        if reached[-1] == "go":
            break
    assert "range slider for Steps" in reached
    page.keyboard.press("Enter")
    page.locator("#said", has_text="Done in").wait_for()


def test_a_broken_file_is_one_sentence(visit, tmp_path):
    page = visit()
    (tmp_path / "broken.jpg").write_bytes(demo_photos()[0].read_bytes()[:200])
    drop(page, tmp_path / "broken.jpg")
    page.locator("#said", has_text="Cannot read broken.jpg").wait_for()
    assert str(Path(us.__file__).parent) not in page.content()
    drop(page, demo_photos()[0])
    page.locator("#said", has_text="Your picture has").wait_for()
    inverted(page)


def test_a_pasted_picture(visit):
    """Anywhere on the page."""
    page = visit()
    page.evaluate(
        """async () => {
            const drawn = new OffscreenCanvas(40, 40);
            drawn.getContext("2d").fillRect(0, 0, 20, 20);
            const data = new DataTransfer();
            data.items.add(new File([await drawn.convertToBlob()], "pasted.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }"""
    )
    page.locator("#said", has_text="Your picture has 40 x 40 pixels").wait_for()
    inverted(page)


def test_stop_reload_and_another_visitor(visit, address):
    """One stops half-way, one waits, and a page that is loaded again in the middle does not hold up anybody."""
    first, second = (ready(visit(), address, steps=100) for _ in range(2))
    go(first)
    first.locator("#said", has_text="move").wait_for()
    go(second)
    second.locator("#said", has_text="Waiting").wait_for()
    first.get_by_role("button", name="Stop", exact=True).click()
    second.locator("#said", has_text="move").wait_for()
    assert "Stopped" in first.locator("#said").inner_text()
    ready(second, address)
    inverted(first)
    inverted(second)


def test_the_app_of_a_hosted_space(browser, tmp_path):
    """It starts in a folder of its own, and writes nowhere else."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    app, home = tmp_path / "space" / "app.py", tmp_path / "home"
    app.parent.mkdir()
    home.mkdir()
    shutil.copy(Path(__file__).parents[2] / "app.py", app)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    around = {"HOME": str(home), "TMPDIR": str(home), "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": port}
    given = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_", "GRADIO_"))}
    command = [sys.executable, "-B", str(app)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=app.parent, env=given | around) as server:
        page = browser.new_page()
        page.set_default_timeout(SLOW)
        inverted(ready(page, server.stdout.readline().split()[0]))
        page.close()
        server.terminate()
    assert list(home.rglob("*")) == []


def test_take_it_along(visit, tmp_path):
    """The run directory is one that `unsample` reads."""
    page = inverted(visit())
    open_tab(page, "Take it along")
    page.get_by_role("button", name="Prepare").click()
    with page.expect_download() as download:
        page.locator("a[download*=unsample-run], a[href*=unsample-run]").first.click()
    zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())).extractall(tmp_path)
    assert len(us.read_run(tmp_path).images) == 1
