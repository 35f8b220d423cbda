"""The page in a real browser: Debian's chromium, driven by Playwright."""

from __future__ import annotations

import io
import shutil
import zipfile

import pytest
from PIL import Image

import unsample as us
from unsample.pictures.read import demo_photos

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

SLOW = 120_000
"""Milliseconds that a machine may take for a few steps of a small model."""


@pytest.fixture(scope="module")
def address():
    """A page of a model of 16x16 pixels, in four steps unless moved."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from unsample.web import serve

    told = []
    app = serve(us.load(device="cpu", size=(16, 16)), browser=False, block=False, ready=told.append)
    yield told[0]
    app.close()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as made:
        opened = made.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[1280, 390])
def visitor(request, browser, address):
    """A page, and all that it asked for from elsewhere."""
    page = browser.new_page(viewport={"width": request.param, "height": 900})
    page.set_default_timeout(SLOW)
    elsewhere = []
    page.on("request", lambda each: each.url.startswith((address, "data:", "blob:")) or elsewhere.append(each.url))
    page.goto(address)
    page.get_by_role("button", name="There and back").wait_for()
    yield page
    assert elsewhere == []
    page.close()


def choose(page, place):
    page.locator("input[type=file]").first.set_input_files(place)
    page.locator("#photo img").wait_for()


def inverted(page):
    choose(page, demo_photos()[1])
    page.get_by_role("button", name="There and back").click()
    page.locator("#said", has_text="Done in").wait_for()


def test_there_and_back(visitor):
    inverted(visitor)
    for way in ("Usual inversion", "The paper's", "Ours"):
        assert visitor.get_by_role("img", name=f"{way}: noise").count() >= 1
    assert visitor.get_by_text("true noise 1.00").count() == 3


def test_a_broken_file_is_one_sentence(visitor, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(demo_photos()[0].read_bytes()[:200])
    visitor.locator("input[type=file]").first.set_input_files(tmp_path / "broken.jpg")
    visitor.get_by_role("button", name="There and back").click()
    visitor.get_by_text("cannot read").first.wait_for()
    assert "Traceback" not in visitor.content()


def test_stop_reload_and_another_visitor(browser, address):
    first, second = (browser.new_page() for _ in range(2))
    for page in (first, second):
        page.set_default_timeout(SLOW)
        page.goto(address)
        choose(page, demo_photos()[0])
        page.get_by_role("button", name="There and back").click()
    first.get_by_role("button", name="Stop", exact=True).click()
    second.locator("#said", has_text="Done in").wait_for()
    first.reload()
    inverted(first)
    for page in (first, second):
        page.close()


def test_take_it_along(browser, address, tmp_path):
    """The run directory is one that `unsample` reads."""
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    page.goto(address)
    inverted(page)
    page.get_by_role("tab", name="Take it along").click()
    page.get_by_role("button", name="Prepare").click()
    page.get_by_text("unsample-run.zip").wait_for()
    with page.expect_download() as download:
        page.locator("a[download]").first.click()
    data = io.BytesIO(open(download.value.path(), "rb").read())
    zipfile.ZipFile(data).extractall(tmp_path)
    assert len(us.read_run(tmp_path).images) == 1
    assert Image.open(tmp_path / "overview.png").width > 100
    page.close()
