"""Noise belongs to an item: same item, same noise, whatever the batch, the order and the number of processes."""

import hashlib
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unsample as us

ITEMS = st.lists(st.one_of(st.integers(-5, 10**12), st.text(max_size=8)), min_size=1, max_size=6, unique_by=str)


@given(items=ITEMS, seed=st.integers(-(2**70), 2**70), data=st.data())
def test_noise_of_an_item_is_the_same_in_any_batch_and_order(items, seed, data):
    shape = (len(items), 2, 3)
    together = dict(zip(items, us.ItemNoise(seed, items).draw(shape), strict=True))
    shuffled = data.draw(st.permutations(items))
    for item, row in zip(shuffled, us.ItemNoise(seed, shuffled).draw(shape), strict=True):
        assert torch.equal(row, together[item])
        assert torch.equal(us.ItemNoise(seed, [item]).draw((1, 2, 3))[0], row)


@pytest.mark.parametrize(
    "other",
    [us.ItemNoise(1, ["a"]), us.ItemNoise(0, ["b"]), us.ItemNoise(-1, ["a"])],
    ids=["seed", "item", "negative seed"],
)
def test_other_seeds_and_items_are_other_noise(other):
    assert not torch.equal(us.ItemNoise(0, ["a"]).draw((1, 8)), other.draw((1, 8)))


def test_streams_are_independent():
    noise = us.ItemNoise(0, range(50))
    a, b = (noise.draw((50, 400), stream=stream).flatten() for stream in ("start", "sample"))
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 5 / 20_000**0.5


def test_items_are_independent_and_standard_normal():
    noise = us.ItemNoise(0, range(200)).draw((200, 500), dtype=torch.float64)
    count = noise.numel()
    assert abs(float(noise.mean())) < 5 / count**0.5
    assert abs(float(noise.var()) - 1) < 5 * (2 / count) ** 0.5
    r = torch.corrcoef(noise)[*torch.triu_indices(200, 200, 1)]
    assert float(r.abs().max()) < 6 / 500**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_precision_changes_the_rounding_and_nothing_else(dtype):
    noise = us.ItemNoise(4, ["x"])
    assert torch.equal(noise.draw((1, 100), dtype=dtype), noise.draw((1, 100), dtype=torch.float64).to(dtype))


def test_noise_is_the_same_in_another_process():
    """Also a golden value: the noise of (0, "cat") may not change between releases."""
    code = (
        "import hashlib, torch, unsample; torch.set_num_threads(2);"
        "x = unsample.ItemNoise(0, ['dog', 'cat']).draw((2, 16), dtype=torch.float64)[1];"
        "print(hashlib.sha256(x.numpy().tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = us.ItemNoise(0, ["cat"]).draw((1, 16), dtype=torch.float64)
    assert there == hashlib.sha256(here.numpy().tobytes()).hexdigest()
    assert here[0, :3].tolist() == pytest.approx(GOLDEN, abs=1e-9)


GOLDEN = [-1.1941030111485322, 2.6801208343441254, 0.6956219087839377]


def test_too_few_items_for_the_shape_are_refused():
    with pytest.raises(us.ArgumentError, match="one item per row"):
        us.ItemNoise(0, ["a"]).draw((2, 3))


def test_draw_noise_is_the_same_for_any_count(toy):
    model = toy()
    assert torch.equal(us.draw_noise(model, 5, seed=2)[:3], us.draw_noise(model, 3, seed=2))
    assert us.draw_noise(model, 2).shape == (2, 1, 4, 4)
    with pytest.raises(us.ArgumentError, match="count as a whole number of at least 1"):
        us.draw_noise(model, 0)
