"""Options of methods: each has the kind that its field says, or is refused when the method is made."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import unsample as us
from unsample.methods.registry import METHODS

ODD = [None, True, float("nan"), float("inf"), -1, 0, 0.5, 10**12, "", "x", [], {}, object(), 1j, torch.zeros(2), us.DDIM]
OPTIONS = [(name, field.name) for name, method in METHODS.items() for field in fields(method.make)]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_has_its_kind_or_is_refused(name, option, untyped):
    """What is taken is of the kind of the default, which no odd value but these can be."""
    usual = getattr(METHODS[name](), option)
    for value in ODD:
        try:
            METHODS[name](**{option: value})
        except us.ArgumentError:
            continue
        optional = value is None and option in ("clip", "patience")
        assert optional or (isinstance(value, (int, float)) and isinstance(value, bool) == isinstance(usual, bool)), value


def test_the_message_names_option_and_method(untyped):
    with pytest.raises(us.ArgumentError, match=r"expected iterations of FixedPoint as a whole number, given 'x'"):
        METHODS["fixed-point"](iterations="x")
    with pytest.raises(us.ArgumentError, match="expected iterations of FixedPoint as a whole number, given True"):
        us.parse_method("fixed-point:iterations=True")
    assert METHODS["fixed-point"](iterations=np.int64(2)).evaluations(3) == 9
    with pytest.raises(us.ArgumentError, match="clip of DDIM"):
        replace(us.DDIM(), clip="1")
