"""What `unsample` says it offers is what it offers: sorted, importable, documented."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import unsample as us

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(us.__path__, "unsample.")
    if not any(part.startswith("_") for part in module.name.split("."))
)


LAZY = {"Comparison", "compare"}
"""What `unsample` loads when it is asked for."""


def isort_key(name):
    """CONSTANTS, then Classes, then functions, as ruff sorts `__all__`."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize("name", ["unsample", *MODULES])
def test_all_is_sorted_unique_and_real(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    if public is None:
        defined = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == name and not k.startswith("_")]
        assert defined == [], f"{name} defines {defined} and no __all__"
        return
    assert list(public) == sorted(set(public), key=isort_key)
    for entry in public:
        assert hasattr(module, entry), f"{name}.__all__ names {entry}, which is not there"


@pytest.mark.parametrize("name", ["unsample", *MODULES])
def test_every_module_begins_with_its_idea(name):
    assert len(inspect.getdoc(importlib.import_module(name)) or "") > 20


def test_the_package_offers_exactly_what_it_imports():
    """Nothing public is forgotten in `__all__`, nothing else leaks into the namespace but submodules."""
    text = Path(us.__file__).read_text()
    imported = {
        n.strip()
        for block in re.findall(r"^(?:    )?from \.\S+ import \(?([^)\n]+|[^)]+)\)?$", text, re.M)
        for n in block.split(",")
    }
    assert imported - {""} == set(us.__all__)
    others = {k for k, v in vars(us).items() if not k.startswith("_") and not inspect.ismodule(v)}
    assert others - {"annotations", "TYPE_CHECKING"} | LAZY == set(us.__all__)


def test_what_is_loaded_when_asked_for_is_what_type_checkers_see():
    block = re.search(r"^if TYPE_CHECKING:\n    from \.studies\.compare import (.+)\n", Path(us.__file__).read_text(), re.M)
    assert set(block[1].split(", ")) == LAZY
    for name in LAZY:
        assert getattr(us, name).__module__.startswith("unsample.studies.compare")
    with pytest.raises(AttributeError, match="no attribute 'comparee'"):
        us.comparee  # noqa: B018


def public_objects():
    for module in ("unsample", *MODULES):
        for entry in getattr(importlib.import_module(module), "__all__", ()):
            thing = getattr(importlib.import_module(module), entry)
            if callable(thing) and getattr(thing, "__module__", "").startswith("unsample"):
                yield pytest.param(thing, id=f"{module}.{entry}")


@pytest.mark.parametrize("thing", list(public_objects()))
def test_every_public_callable_is_documented(thing):
    assert thing.__doc__, thing
    assert not thing.__doc__.startswith(f"{thing.__name__}("), f"{thing.__name__} has only the docstring dataclass gave it"
    if inspect.isclass(thing):
        for name, member in vars(thing).items():
            if name.startswith("_") or not (
                inspect.isfunction(member) or isinstance(member, (property, classmethod, staticmethod))
            ):
                continue
            assert inspect.getdoc(getattr(thing, name)), f"{thing.__name__}.{name} has no docstring"


def test_arguments_of_what_users_call_are_told():
    """Each argument of the calls is named in the docstring, but for those `reconstruct` shares with `invert`."""
    for call in (us.invert, us.sample, us.load, us.compare, us.edit, us.variations, us.edit_attention, us.interpolate):
        for argument in inspect.signature(call).parameters:
            assert re.search(rf"^\s+{argument}: ", call.__doc__, re.M), f"{call.__name__} does not tell of {argument}"
    shared = set(inspect.signature(us.invert).parameters) - {"until", "keep"}
    assert set(inspect.signature(us.reconstruct).parameters) == shared | {"sampler"}


def test_what_is_called_alike_is_alike():
    """What opens a model and pictures has a size, what has a condition takes it as a prompt; defaults are the same."""
    doors = (us.invert, us.sample, us.reconstruct, us.edit, us.variations, us.edit_attention, us.interpolate)
    taken = {call.__name__: inspect.signature(call).parameters for call in doors}
    told = {name for name, parameters in taken.items() if "condition" in parameters}
    assert told == {"invert", "sample", "reconstruct", "variations", "interpolate"}
    assert {name for name, parameters in taken.items() if "prompt" in parameters} == told
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
