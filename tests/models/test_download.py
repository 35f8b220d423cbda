"""`unsample models fetch`: a model of random weights, published to a folder and a server, put in place and loaded."""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

import unsample as us
from unsample.models import cards, fetch
from unsample.models import cards as known_cards
from unsample.models import download as fetching
from unsample.models.download import LIST, list_files
from unsample.models.parts import own_part, put_in_place

registry = import_module("unsample.models.load")

NAME = "toy"


def one_line(ran):
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    return ran.err


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder like `weights/`, with one model of two shards in it."""
    weights = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    unet = UNet2DModel(8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1, **blocks)
    DDIMPipeline(unet, DDIMScheduler()).save_pretrained(weights / NAME, max_shard_size="12KB")
    assert len(list((weights / NAME / "unet").glob("*.safetensors"))) > 1
    (weights / NAME / LIST).write_bytes(list_files(weights / NAME))
    return weights


@pytest.fixture
def place(published, tmp_path, monkeypatch):
    """A machine that has nothing yet; the package knows the model, and is not read from its repository."""
    made = replace(
        cards()["tiny-imagenet-32"], name=NAME, files=hashlib.sha256((published / NAME / LIST).read_bytes()).hexdigest()
    )
    known = {**known_cards(), NAME: made}
    for module in (fetching, registry):
        monkeypatch.setattr(module, "cards", lambda: known)
    for module in (sys.modules["unsample.models.cards"], fetching):
        monkeypatch.setattr(module, "repository_weights", lambda: None)
    monkeypatch.setenv("UNSAMPLE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models" / NAME


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "weights")


@contextmanager
def serving(folder, on_request):
    """The address of a folder, on loopback."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            on_request(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def server(copy):
    """The address of the folder, and the paths of its requests."""
    requests = []
    with serving(copy, requests.append) as address:
        yield address, requests


@pytest.fixture
def slow_server(copy):
    """The address of the folder, each of whose files takes a while."""
    with serving(copy, lambda path: time.sleep(0.3)) as address:
        yield address


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_from_a_folder(published, place):
    with pytest.raises(us.ModelError, match="`unsample models fetch toy --from ADDRESS` gets it from"):
        us.load(NAME)
    steps = []
    assert fetch(NAME, published, on_step=lambda *step: steps.append(step)) == place
    assert contents(place) == contents(published / NAME)
    assert us.load(NAME, device="cpu").digest == us.load(published / NAME, device="cpu").digest
    total = sum(entry["bytes"] for entry in json.loads((place / LIST).read_text()).values())
    assert steps[-1] == (total, total)
    assert steps == sorted(steps)


def test_from_a_server(server, place, copy):
    address, requests = server
    fetch(NAME, address + "/")
    assert contents(place) == contents(copy / NAME)
    count = len(requests)
    fetch(NAME)  # it is whole: nothing is requested
    assert len(requests) == count


def test_a_stopped_fetch_goes_on_where_it_was(server, place):
    address, requests = server

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, address, on_step=stop)
    assert not place.exists()
    half = len(requests)
    fetch(NAME, address)
    assert us.load(NAME, device="cpu").digest
    assert len(requests) - half < half  # of the list and every file, what was whole is not requested again
    assert len(requests) == len(contents(place)) + (1 if requests[half - 1] == requests[half] else 0)


SCRIPT = """
import sys
from dataclasses import replace
from unsample.models import cards, download
known = {"toy": replace(cards()["tiny-imagenet-32"], name="toy", files=sys.argv[2])}
download.cards = lambda: known
download.fetch("toy", sys.argv[1])
"""


def other_process(address, published):
    """Another process that fetches the model to the same place."""
    listed = hashlib.sha256((published / NAME / LIST).read_bytes()).hexdigest()
    return subprocess.Popen([sys.executable, "-c", SCRIPT, address, listed])


@pytest.mark.parametrize("before", ["nothing", "damaged", "left"])
def test_two_fetches_at_once_leave_the_model_whole(slow_server, place, published, before):
    """Of a slow server. The model was gone afterwards, or a part of it, and twice without an error."""
    if before == "damaged":
        shutil.copytree(published / NAME, place)
        next(place.rglob("*.safetensors")).unlink()
    if before == "left":  # by a process that was killed
        (place.parent / f".{NAME}.1.part").mkdir(parents=True)
        (place.parent / f".{NAME}.1.part" / "tmp0").write_text("half")
        (place.parent / f".{NAME}.1.lock").touch()
    processes = [other_process(slow_server, published) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert contents(place) == contents(published / NAME)
    assert [file.name for file in place.parent.iterdir()] == [NAME]


def test_a_model_that_is_whole_stays_while_another_fetch_ends(place, published, copy):
    """The other began before it was."""
    with own_part(place) as part:
        shutil.copytree(copy / NAME, part, dirs_exist_ok=True)
        fetch(NAME, published)
        inode = (place / LIST).stat().st_ino
        put_in_place(part, place, lambda: True)
        assert (place / LIST).stat().st_ino == inode
        assert contents(place) == contents(published / NAME)


def test_what_was_damaged_is_mended_and_what_was_added_goes(published, place):
    fetch(NAME, published)
    weights = next(place.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (place / "modeling.py").write_text("print('hello')")
    fetch(NAME, published)
    assert contents(place) == contents(published / NAME)


@pytest.mark.parametrize("damage", ["short", "long", "other", "gone"])
def test_an_origin_with_another_file(copy, place, damage):
    weights = next((copy / NAME).rglob("*.safetensors"))
    data = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes({"short": data[:-1], "long": data + b"x", "other": b"x" + data[1:]}[damage])
    with pytest.raises(us.ModelError, match=r"cannot read|is not what"):
        fetch(NAME, copy)
    assert not place.exists()


def test_a_list_that_the_package_does_not_know(copy, place):
    listed = json.loads((copy / NAME / LIST).read_text())
    (copy / NAME / LIST).write_text(json.dumps({"../../elsewhere.json": next(iter(listed.values()))}))
    with pytest.raises(us.ModelError, match="is not the list of 'toy' that this version of unsample knows"):
        fetch(NAME, copy)


@pytest.mark.parametrize(
    "path", ["../elsewhere.json", "/etc/elsewhere.json", "a/../b.json", "unet/run.py", "a//b.json", "a b.json"]
)
def test_paths_of_a_list_are_not_trusted(copy, place, monkeypatch, path):
    """Even of a list that the package knows."""
    text = json.dumps({path: {"sha256": "", "bytes": 0}}).encode()
    (copy / NAME / LIST).write_bytes(text)
    known = {NAME: replace(fetching.cards()[NAME], files=hashlib.sha256(text).hexdigest())}
    monkeypatch.setattr(fetching, "cards", lambda: known)
    with pytest.raises(us.ModelError, match="plain names"):
        fetch(NAME, copy)


@pytest.mark.parametrize(
    ("name", "origin", "said"),
    [
        ("tiny-imagenet-32", None, "it comes with unsample"),
        ("flux-dev", None, "it is on the hub as black-forest-labs/FLUX.1-dev"),
        ("adm-imagenet-64", None, "fetched by hand"),
        ("toi", None, "did you mean 'toy'"),
        (NAME, None, "models fetch toy --from ADDRESS"),
        (NAME, "ftp://example.org", "expected a folder or an http(s) address"),
        (NAME, "nowhere", "cannot read"),
        (NAME, "http://127.0.0.1:9", "cannot read"),
    ],
)
def test_what_cannot_be_fetched(unsample, place, name, origin, said):
    assert said in one_line(unsample("models", "fetch", name, *(["--from", origin] if origin else [])))


@pytest.mark.parametrize("release", ["", "https://example.org/weights"])
def test_what_needs_a_model_and_what_fetches_it_say_the_same(unsample, place, monkeypatch, release):
    """One said "fetch it" and the other that it could not: installed from a wheel there is no place to fetch it from."""
    monkeypatch.setattr(fetching, "RELEASE", release)
    needed = one_line(unsample("inspect", NAME))
    if release:
        assert "`unsample models fetch toy` gets it" in needed
        assert fetching._origin(NAME, None) == f"{release}/toy"
    else:
        how = "`unsample models fetch toy --from ADDRESS` gets it from a folder or server that holds `weights` of unsample's"
        assert how in needed
        assert how in one_line(unsample("models", "fetch", NAME))
        assert "tiny-imagenet-32-v comes with unsample" in needed
        assert cards()[fetching.BUNDLED_MODEL].path


def test_a_full_disk(published, place, monkeypatch):
    def full(*given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(us.ModelError, match="No space left on device; free some space, or set UNSAMPLE_MODELS"):
        fetch(NAME, published)


def test_the_command(unsample, place, published):
    assert unsample("models", "fetch", NAME, "--from", published).out == f"{NAME}: {place}\n"


def test_models_of_the_repository_are_what_the_package_knows():
    """Every model that is fetched lies in `weights/`, its files as listed, none larger than 15 MB."""
    folder = fetching.repository_weights()
    for card in (card for card in cards().values() if card.files):
        assert fetching._is_whole(card, folder / card.name)
        listed = json.loads((folder / card.name / LIST).read_text())
        assert set(listed) | {LIST} == {path.as_posix() for path in contents(folder / card.name)}
        assert max(entry["bytes"] for entry in listed.values()) <= 15_000_000
        assert sum(entry["bytes"] for entry in listed.values()) <= 60_000_000


def test_the_package_is_small_enough_to_install():
    package = Path(us.__file__).parent
    assert (
        sum(path.stat().st_size for path in package.rglob("*") if "__pycache__" not in path.parts and path.is_file())
        < 40_000_000
    )
