"""The paths between latents against angles worked out one item at a time, SciPy's arc, and their own promises."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp

import unsample as us
from unsample.diagnostics import true_noise
from unsample.uses.paths import PATHS, along, corners, key_frames, lerp, norm, slerp

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
dtypes = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])
positions = st.floats(0, 1)


def ends(shape, dtype, seed=0):
    return [true_noise((3, *shape), seed=seed, draw=draw).to(dtype) for draw in (0, 1)]


def lengths(x):
    return x.double().flatten(1).norm(dim=1)


def naive(a, b, t):
    """Shoemake's formula, one item at a time, with the angle as an arc cosine."""
    rows = []
    for x, y in zip(a.double().numpy(), b.double().numpy(), strict=True):
        w = math.acos((x.ravel() @ y.ravel()) / np.linalg.norm(x) / np.linalg.norm(y))
        rows.append((math.sin((1 - t) * w) * x + math.sin(t * w) * y) / math.sin(w))
    return torch.from_numpy(np.stack(rows))


@given(shapes, dtypes, positions)
def test_the_arc_is_that_of_a_naive_formula(shape, dtype, t):
    """Of eight values or more: the arc cosine is exact to 1e-8 alone where ends are nearly parallel, as of two they may be."""
    a, b = ends((*shape, 8), dtype)
    expected = naive(a, b, t).to(dtype)
    found = slerp(a, b, t)
    assert found.dtype == dtype
    assert torch.allclose(found.double(), expected.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-9)


@given(st.integers(2, 40), st.integers(0, 5))
def test_the_arc_between_unit_vectors_is_scipys(size, seed):
    a, b = (x.double() / lengths(x)[:, None] for x in ends((size,), torch.float64, seed))
    for x, y in zip(a, b, strict=True):
        theirs = torch.from_numpy(geometric_slerp(x.numpy(), y.numpy(), np.linspace(0, 1, 7)))
        assert torch.allclose(along(torch.stack([x, y]), 7), theirs, atol=1e-12)


@given(shapes, dtypes, positions, st.floats(1e-3, 1e3), st.integers(0, 5))
def test_the_arc_keeps_a_norm_that_the_ends_share(shape, dtype, t, size, seed):
    """Also between opposite and parallel ends; items of one value may have to pass through 0."""
    shape = (*shape, 2)
    a, b = (x / lengths(x).view(-1, *[1] * len(shape)) * size for x in ends(shape, torch.float64, seed))
    for other in (b, a, -a):
        found = slerp(a.to(dtype), other.to(dtype), t)
        wanted = (1 - t) * lengths(a.to(dtype)) + t * lengths(other.to(dtype))  # rounded, they differ by so little
        assert torch.allclose(lengths(found), wanted, rtol=4 * torch.finfo(dtype).eps + 1e-12, atol=2e-7)


@given(st.sampled_from(list(PATHS)), shapes, dtypes, st.integers(0, 5))
def test_ends_are_exact_bit_by_bit(path, shape, dtype, seed):
    a, b = ends(shape, dtype, seed)
    for other in (b, a, -a, -2 * a, 0 * a, (1 + 1e-3) * a):
        assert torch.equal(PATHS[path](a, other, 0.0), a)
        assert torch.equal(PATHS[path](a, other, 1.0), other)
        assert bool(PATHS[path](a, other, 0.3).isfinite().all())


@given(shapes, positions)
def test_parallel_ends_are_joined_by_their_line(shape, t):
    a, _ = ends(shape, torch.float64)
    for factor in (1.0, 1 + 1e-15, 2.5):
        assert torch.allclose(slerp(a, factor * a, t), (1 - t + factor * t) * a, atol=1e-12)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12])
def test_nearly_parallel_ends_lose_no_digits(gap):
    """Reference: the arc by sine and cosine of the known angle. An arc cosine is off by 1e-8 for any of these angles."""
    u, v = torch.eye(2, dtype=torch.float64)
    a, b = u[None], (math.cos(gap) * u + math.sin(gap) * v)[None]
    found = slerp(a, b, 0.25)[0]
    assert float(found[1]) == pytest.approx(math.sin(gap / 4), rel=1e-12)


@pytest.mark.parametrize("size", [2, 3, 48])
def test_opposite_ends_turn_through_the_quarter_turn(size):
    a = true_noise((2, size)).double()
    middle = slerp(a, -3 * a, 0.5)
    assert float((a * middle).sum(1).abs().max()) < 1e-12
    assert torch.allclose(lengths(middle), 2 * lengths(a))
    even = size // 2 * 2
    turned = torch.stack([-a[:, 1:even:2], a[:, 0:even:2]], dim=-1).flatten(1)
    assert torch.allclose(middle[:, :even] / lengths(middle)[:, None], turned / lengths(turned)[:, None])


@pytest.mark.parametrize("a", [torch.tensor([[2.0]]), torch.tensor([[0.0, 0.0, 2.0]])])
def test_opposite_ends_that_cannot_turn_pass_through_zero(a):
    assert torch.equal(slerp(a, -a, 0.5), 0 * a)
    assert torch.allclose(slerp(a, -a, 0.25), a / 2)


def test_from_zero_the_way_is_straight():
    a, _ = ends((4,), torch.float32)
    assert torch.allclose(slerp(0 * a, a, 0.25), a / 4)
    assert torch.equal(slerp(0 * a, 0 * a, 0.25), 0 * a)


@given(shapes, dtypes, positions)
def test_norm_is_the_direction_of_the_line_with_the_norm_between(shape, dtype, t):
    a, b = ends((*shape, 2), dtype)
    a = 2 * a
    found, line = norm(a, b, t).double(), lerp(a.double(), b.double(), t)
    size = ((1 - t) * lengths(a) + t * lengths(b)).view(-1, *[1] * (len(shape) + 1))
    direction = line / lengths(line).view_as(size)
    assert torch.allclose(found, direction * size, rtol=4 * torch.finfo(dtype).eps, atol=1e-7)
    assert torch.allclose(lerp(a, b, t).double(), (1 - t) * a.double() + t * b.double(), rtol=1e-2, atol=1e-2)


def test_the_line_leaves_where_noise_lies_and_the_arc_does_not():
    """Half way between independent noises of D = 3072 values the line's norm is sqrt(D / 2), the others' sqrt(D)."""
    a, b = ends((3, 32, 32), torch.float32)
    root = math.sqrt(3072)
    assert lengths(lerp(a, b, 0.5)) / root == pytest.approx([math.sqrt(0.5)] * 3, rel=0.03)
    for path in (slerp, norm):
        assert lengths(path(a, b, 0.5)) / root == pytest.approx([1.0] * 3, rel=0.03)


def test_row_by_row_is_another_path():
    """The pitfall: an angle per row of pixels, as a slerp along the last axis takes it. Reference: the definition, row by row.

    Rows of 32 values have angles of 90 +- 10 degrees and norms of their own, and their arcs lose the norm of the whole.
    """
    a, b = (x / lengths(x).view(3, 1, 1, 1) for x in ends((3, 32, 32), torch.float64))
    whole = slerp(a, b, 0.5)
    rows = torch.stack([naive(x.reshape(-1, 32), y.reshape(-1, 32), 0.5) for x, y in zip(a, b, strict=True)]).view_as(a)
    assert float((rows - whole).flatten(1).norm(dim=1).min()) > 0.05
    assert float((lengths(rows) - 1).abs().min()) > 1e-4
    assert float((lengths(whole) - 1).abs().max()) < 1e-12


def test_each_item_has_an_angle_and_a_position_of_its_own():
    a, b = ends((2, 3), torch.float32)
    t = torch.tensor([0.0, 0.3, 1.0])
    found = slerp(a, b, t)
    for i in range(3):
        assert torch.equal(found[i : i + 1], slerp(a[i : i + 1], b[i : i + 1], float(t[i].double())))


@given(st.integers(2, 6), st.integers(0, 20), st.sampled_from(list(PATHS)))
def test_a_way_hits_every_key_and_is_even_between(keys, more, path):
    x = true_noise((keys, 2, 3))
    frames = keys + more
    at = key_frames(keys, frames)
    assert (at[0], at[-1], sorted(set(at))) == (0, frames - 1, at)
    assert max(np.diff(at)) - min(np.diff(at)) <= 1
    found = along(x, frames, path)
    assert torch.equal(found[at], x)
    for i, (first, last) in enumerate(pairwise(at)):
        for frame in range(first + 1, last):
            t = (frame - first) / (last - first)
            assert torch.allclose(found[frame], PATHS[path](x[i : i + 1], x[i + 1 : i + 2], t)[0], atol=1e-6)


@pytest.mark.parametrize("path", PATHS)
def test_a_grid_has_its_corners_and_its_sides(path):
    a, b, c, d = true_noise((4, 2, 3))
    found = corners(a, b, c, d, 4, 5, path)
    assert found.shape == (4, 5, 2, 3)
    for got, given_ in ((found[0, 0], a), (found[0, -1], b), (found[-1, 0], c), (found[-1, -1], d)):
        assert torch.equal(got, given_)
    assert torch.equal(found[:, 0], along(torch.stack([a, c]), 4, path))
    assert torch.equal(found[:, -1], along(torch.stack([b, d]), 4, path))
    middle = PATHS[path](found[2:3, 0], found[2:3, -1], 0.5)[0]
    assert torch.allclose(found[2, 2], middle, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x: slerp(x, x, 1.5), r"t in \[0, 1\]"),
        (lambda x: slerp(x, x, float("nan")), r"t in \[0, 1\]"),
        (lambda x: slerp(x, x[:, :1], 0.5), "one shape"),
        (lambda x: along(x[:1], 5), "at least 2 pictures or latents"),
        (lambda x: along(x, 2), "at least 3"),
        (lambda x: along(x, 5, "straight"), "unknown path"),
        (lambda x: corners(x[0], x[1], x[2], x[0, :1], 2, 2), "one shape"),
        (lambda x: corners(x[0], x[1], x[2], x[0], 1, 2), "at least 2"),
    ],
)
def test_what_makes_no_path_is_one_line(untyped, call, says):
    with pytest.raises(us.UnsampleError, match=says) as error:
        call(true_noise((3, 4)))
    assert "\n" not in str(error.value)
