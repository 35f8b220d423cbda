"""Every error of the tree is raised by a real call, in one line that says what to do."""

import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

import unsample as us
from unsample import errors
from unsample.methods.starts import parse_start
from unsample.runs import sample as jobs
from unsample.runs.settings import SampleSettings


def tree(root):
    """A class and everything below it, in this library."""
    return [root, *(leaf for child in root.__subclasses__() for leaf in tree(child))]


def diverging(folder):
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
    model = us.Model(lambda x, t, condition: x * float("inf"), schedule, (3, 4, 4))
    jobs.sample_images(model, SampleSettings.of(model, steps=2, count=1), folder / "run")


CASES = {
    us.ArgumentError: lambda folder: us.ForwardNoise(),
    us.UnknownNameError: lambda folder: us.load("tiny-imagenet-23"),
    us.ImageError: lambda folder: us.load_images([folder / "nothing.png"], (8, 8)),
    us.ModelError: lambda folder: us.load(str(folder)),
    us.RunError: lambda folder: us.Trajectory.load(folder / "nothing.safetensors"),
    us.DivergenceError: diverging,
}


@pytest.mark.parametrize(
    "kind", [kind for kind in tree(us.UnsampleError) if kind is not us.UnsampleError], ids=lambda k: k.__name__
)
def test_every_error_is_raised_by_a_real_call(kind, tmp_path):
    assert kind in CASES, f"add a call that raises {kind.__name__}"
    with pytest.raises(us.UnsampleError) as caught:
        CASES[kind](tmp_path)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) > 20
    assert ("expected" in message) or (";" in message) or (":" in message)


def test_the_tree_is_public_and_drawn():
    for kind in tree(us.UnsampleError):
        assert getattr(us, kind.__name__) is kind
        assert kind.__name__ in errors.__doc__
    assert issubclass(us.ArgumentError, ValueError)


@pytest.mark.parametrize("kind", tree(us.UnsampleError), ids=lambda kind: kind.__name__)
def test_every_error_keeps_its_message_through_a_pickle(kind):
    error = kind("method", "dimm", ["ddim"]) if kind is us.UnknownNameError else kind("expected this, given that")
    error.add_note("of image 3")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind
    assert (str(found), found.__notes__) == (str(error), error.__notes__)


def test_an_unknown_name_in_a_pool_of_processes_reaches_its_parent():
    """It hung there for good."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(us.parse_method, "dimm").exception(timeout=100)
    assert isinstance(found, us.UnknownNameError)
    assert "did you mean" in str(found)


def test_unknown_names_suggest_only_what_is_close():
    assert "did you mean 'ddim'?" in str(us.UnknownNameError("method", "dimm", ["ddim", "heun"]))
    assert "did you mean" not in str(us.UnknownNameError("method", "zzz", ["ddim", "heun"]))
    assert "expected one of ddim, heun" in str(us.UnknownNameError("method", "zzz", ["heun", "ddim"]))


@pytest.mark.parametrize(
    ("given", "suggested"),
    [
        ("bus", "'school bus' or 'trolleybus'"),
        ("cat", "'Egyptian cat' or 'cathedral'"),
        ("Egyptian", "'Egyptian cat'"),
        ("abacuss", "'abacus'"),
        ("scool bus", "'school bus'"),
        ("CAT", "'Egyptian cat' or 'cathedral'"),
    ],
)
def test_a_part_of_a_name_suggests_the_whole(given, suggested):
    names = ["abacus", "school bus", "trolleybus", "Egyptian cat", "cathedral", "vacation"]
    assert f"did you mean {suggested}?" in str(us.UnknownNameError("class", given, names))


@pytest.mark.parametrize(
    "call",
    [
        lambda: parse_start("x"),
        lambda: us.load("not-a-model"),
        lambda: us.load_images(["nothing.png"], (8, 8)),
        lambda: us.Trajectory.load("nothing"),
    ],
)
def test_causes_are_told_in_the_message_not_in_a_chain(call):
    """What people see is one line, never a traceback of a library below."""
    with pytest.raises(us.UnsampleError) as caught:
        call()
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_library_code_never_prints():
    """Only the command line does."""
    printing = re.compile(r"(?<!>>> )\bprint\(")
    root = Path(us.__file__).parent
    printers = {file.relative_to(root).parts[0] for file in root.rglob("*.py") if printing.search(file.read_text())}
    assert printers == {"cli"}


def test_a_network_that_breaks_is_not_disguised():
    """An error of the caller's own network comes out as it is."""

    def broken(x, t, condition):
        raise KeyError("mine")

    model = us.Model(broken, us.Schedule.from_betas(us.Schedule.linear_betas()), (1, 4, 4))
    with pytest.raises(KeyError, match="mine"):
        us.invert(model, torch.zeros(1, 1, 4, 4), steps=2)
