"""The public names: sorted, importable, documented."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unsample as us

LAZY = {"Comparison": "unsample.studies.compare", "compare": "unsample.studies.compare"}
LAZY |= {"read_run": "unsample.runs.read_back", "dataset": "unsample.dataset"}
"""What `unsample` loads at its first use."""


NEED_GRADIO = ("unsample.web.actions", "unsample.web.page")


@pytest.fixture(scope="module")
def modules():
    """Every public module, in a fixture because importing all takes seconds."""
    names = [module.name for module in pkgutil.walk_packages(us.__path__, "unsample.") if "._" not in module.name]
    without = () if importlib.util.find_spec("gradio") else NEED_GRADIO
    return [us, *map(importlib.import_module, sorted(set(names) - set(without)))]


def isort_key(name):
    """CONSTANTS, then Classes, then functions, as ruff sorts `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def public(module):
    """The public names: what a package lists in `__all__`, what a plain module defines."""
    named = {name: thing for name, thing in vars(module).items() if getattr(thing, "__name__", "") == name}
    defined = [name for name, thing in named.items() if getattr(thing, "__module__", "") == module.__name__]
    return getattr(module, "__all__", [name for name in defined if not name.startswith("_")])


def faults_of_all(module):
    """What is wrong with a package's `__all__`: names that are not there, twice there, or out of order; modules have none."""
    if not hasattr(module, "__path__"):
        return ["a plain module needs no __all__"] if hasattr(module, "__all__") else []
    names = public(module)
    absent = [f"{name} does not exist" for name in names if not hasattr(module, name)]
    order = sorted(set(names), key=isort_key)
    return absent if list(names) == order else [*absent, f"expected {order}"]


def test_all_is_sorted_unique_and_real(modules):
    faults = {module.__name__: faults_of_all(module) for module in modules}
    assert {name: wrong for name, wrong in faults.items() if wrong} == {}


def test_every_module_begins_with_its_idea(modules):
    assert [module.__name__ for module in modules if len(inspect.getdoc(module) or "") <= 20] == []


def test_the_package_offers_exactly_what_it_imports():
    """Nothing public is forgotten in `__all__`, nothing else leaks into the namespace but submodules."""
    text = Path(us.__file__).read_text()
    imported = {
        n.strip()
        for block in re.findall(r"^(?:    )?from \.\S* import \(?([^)\n]+|[^)]+)\)?$", text, re.M)
        for n in block.split(",")
    }
    assert imported - {""} == set(us.__all__)
    others = {k for k, v in vars(us).items() if not k.startswith("_") and not inspect.ismodule(v)}
    assert others - {"annotations", "TYPE_CHECKING", "import_module", "pairwise"} | set(LAZY) == set(us.__all__)


def test_rooms_are_loaded_at_their_first_use():
    code = "import unsample as us; assert 'pydantic' not in __import__('sys').modules; us.dataset.invert"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_loaded_at_its_first_use_is_what_type_checkers_see():
    block = re.search(r"^if TYPE_CHECKING:\n(.+?)^else:", Path(us.__file__).read_text(), re.M | re.S)
    names = [name for names in re.findall(r"import (.+)", block[1]) for name in names.split(", ")]
    assert set(names) == set(LAZY)
    for name, module in LAZY.items():
        made = getattr(us, name)
        assert (made.__name__ if inspect.ismodule(made) else made.__module__).startswith(module)
    with pytest.raises(AttributeError, match="no attribute 'comparee'"):
        us.comparee  # noqa: B018


def undocumented(thing):
    """Names without a docstring of their own or an inherited one: the thing, and the public methods of a class."""
    if not inspect.getdoc(thing) or (thing.__doc__ or "").startswith(f"{thing.__name__}("):  # dataclass writes a signature
        yield thing.__name__
    for name, member in vars(thing).items() if inspect.isclass(thing) else ():
        is_method = inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
        if is_method and not name.startswith("_") and not inspect.getdoc(getattr(thing, name)):
            yield f"{thing.__name__}.{name}"


def test_every_public_callable_is_documented(modules):
    things = [getattr(module, name) for module in modules for name in public(module)]
    callables = {id(thing): thing for thing in things if callable(thing)}.values()
    ours = [thing for thing in callables if getattr(thing, "__module__", "").startswith("unsample")]
    assert len(ours) > 500
    assert sorted(name for thing in ours for name in undocumented(thing)) == []


def test_arguments_of_what_users_call_are_documented():
    """Each argument of the calls is named in the docstring, but for those `reconstruct` shares with `invert`."""
    for call in (us.invert, us.sample, us.load, us.compare, us.edit, us.variations, us.edit_attention, us.interpolate):
        for argument in inspect.signature(call).parameters:
            assert re.search(rf"^\s+{argument}: ", call.__doc__, re.M), f"{call.__name__} does not document {argument}"
    shared = set(inspect.signature(us.invert).parameters) - {"until", "keep"}
    assert set(inspect.signature(us.reconstruct).parameters) == shared | {"sampler"}


def test_what_is_called_alike_is_alike():
    """What opens a model and pictures has a size, what has a condition takes it as a prompt; defaults are the same."""
    doors = (us.invert, us.sample, us.reconstruct, us.edit, us.variations, us.edit_attention, us.interpolate)
    taken = {call.__name__: inspect.signature(call).parameters for call in doors}
    conditioned = {name for name, parameters in taken.items() if "condition" in parameters}
    assert conditioned == {"invert", "sample", "reconstruct", "variations", "interpolate"}
    assert {name for name, parameters in taken.items() if "prompt" in parameters} == conditioned
    for parameters in taken.values():
        assert next(iter(parameters)) == "model"
        assert parameters["size"].default is None
    first = taken["invert"]
    for name in ("edit_attention", "interpolate"):  # which invert pictures on the way to something else
        for theirs, ours in (("method", "inversion"), ("start", "start"), ("seed", "seed")):
            assert taken[name][ours].default == first[theirs].default
            assert taken[name][ours].annotation == first[theirs].annotation


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert us.__version__ == version("unsample")
