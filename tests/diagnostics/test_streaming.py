import math
import pickle

import numpy as np
import pytest
import scipy.stats
import torch

from unsample.diagnostics import (
    area_sums,
    autocorrelation,
    correlation_floor,
    frechet,
    frechet_null,
    independent_angles,
    kl_per_coordinate,
    line_distances,
    linear_cka,
    most_probable_triangle,
    plain_mask,
    pooled_moments,
    radial_spectrum,
    top_k_correlation,
    triangle,
    true_noise,
)
from unsample.diagnostics import streaming as st
from unsample.errors import ArgumentError

BATCHES = [7, 64, 29]
SHAPE = (2, 12, 9)


def smooth(n=100, shape=SHAPE, draw=0):
    """Images in [-1, 1], or nearly: correlated, of mean 0.3, not normal."""
    x = true_noise((n, *shape), draw=draw).double()
    return 0.3 + 0.3 * (x + 0.7 * x.roll(1, 3) + 0.5 * x.roll(1, 2)).tanh() + 0.1 * x[:, :, :1, :1]


IMAGE, NOISE = smooth(), true_noise((100, *SHAPE), draw=1).double()
LATENT = 0.6 * NOISE + 0.3 * IMAGE + 0.4 * true_noise((100, *SHAPE), draw=2)
STATES = torch.stack([NOISE, 0.5 * NOISE + 0.5 * IMAGE, IMAGE])
FEATURES, OTHERS = IMAGE[:, 0, :3, :4].flatten(1), LATENT[:, 0, :3, :3].flatten(1)


def pooled(x):
    return {name: found.value for name, found in pooled_moments(x).items()}


def area(x, mask=None):
    sums = area_sums(x, mask)
    return {"mean": sums.mean, "std": sums.std, "lag1": sums.lag1}


def error(per_image):
    return per_image.std(0) / math.sqrt(len(per_image))


def spectrum(x):
    found = radial_spectrum(x)
    low, high = found.null_interval()
    return {
        "frequencies": found.frequencies,
        "power": found.power,
        "error": error(found.per_image),
        "null_std": found.null_std,
        "null_low": low,
        "null_high": high,
    }


def lags(x):
    found = autocorrelation(x)
    return {"value": found.value, "null_std": found.null_std}


def distances(noise, latent, *states):
    each = torch.stack([line_distances(state, noise, latent) for state in states], dim=1)
    return {"mean": each.mean(0), "error": error(each), "count": len(noise)}


def triangles(image, noise, latent):
    found = triangle(image, noise, latent)
    sides = torch.stack([found.noise_latent, found.image_latent, found.image_noise], dim=1)
    return {
        "angles": found.angles.mean(0),
        "angles_error": error(found.angles),
        "sides": sides.mean(0),
        "sides_error": error(sides),
        "most_probable": most_probable_triangle(found, bins=18),
        "count": len(image),
    }


# How to make it, the pure function on all images at once, what both are given, and how it is given if not in that order.
CASES = {
    "top-k": (st.TopKCorrelation, top_k_correlation, [IMAGE]),
    "top-k, other windows": (lambda: st.TopKCorrelation(3, 4), lambda x: top_k_correlation(x, 3, 4), [IMAGE]),
    "top-k, pivot": (lambda: st.TopKCorrelation(pivot=0.3), top_k_correlation, [IMAGE]),
    "moments": (st.PooledMoments, pooled, [IMAGE]),
    "moments, pivot": (lambda: st.PooledMoments(pivot=0.4), pooled, [IMAGE]),
    "kl": (st.CoordinateKL, kl_per_coordinate, [IMAGE]),
    "kl of rows, pivot": (lambda: st.CoordinateKL(pivot=-1.0), kl_per_coordinate, [FEATURES]),
    "area": (st.AreaMoments, area, [LATENT, plain_mask(IMAGE, 0.1)]),
    "whole area": (st.AreaMoments, area, [LATENT]),
    "spectrum": (st.SpectralPower, spectrum, [IMAGE]),
    "lags": (st.LagCorrelation, lags, [IMAGE]),
    "frechet": (st.FrechetDistance, lambda a, b: frechet(a, b, features="parts").value, [FEATURES, FEATURES**2]),
    "frechet, pivot": (
        lambda: st.FrechetDistance(pivot=0.5),
        lambda a, b: frechet(a, b, features="images").value,
        [IMAGE[:, :, :3, :3], LATENT[:, :, :3, :3]],
    ),
    "cka": (st.LinearCKA, linear_cka, [FEATURES, OTHERS]),
    "cka, more values than items": (lambda: st.LinearCKA(pivot=0.3), linear_cka, [IMAGE, OTHERS]),
    "distances": (st.LineDistances, distances, [NOISE, LATENT, *STATES]),
    "triangles": (lambda: st.Triangles(bins=18), triangles, [IMAGE, NOISE, LATENT]),
}


def feed(metric, batch):
    if isinstance(metric, st.LineDistances):
        noise, latent, *states = batch
        metric.update(states, noise, latent)
    else:
        metric.update(*batch)


def fed(make, parts):
    metric = make()
    for part in parts:
        feed(metric, part)
    return metric


def batches(data, sizes=BATCHES):
    return list(zip(*(x.split(sizes) for x in data), strict=True))


def assert_same(found, expected):
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for name in expected:
            assert_same(found[name], expected[name])
    else:
        # The distances of the pure function have an absolute error of some 1e-12 themselves.
        assert np.asarray(found) == pytest.approx(np.asarray(expected), rel=1e-11, abs=1e-12)
        assert found.dtype == torch.float64


@pytest.mark.parametrize("case", CASES)
def test_batches_give_the_value_of_the_pure_function_on_all_images(case):
    make, pure, data = CASES[case]
    parts, expected = batches(data), pure(*data)
    assert_same(fed(make, parts).compute(), expected)
    assert_same(fed(make, parts[::-1]).compute(), expected)
    assert_same(fed(make, batches(data, [33] * 3 + [1])).compute(), expected)


@pytest.mark.parametrize("case", CASES)
def test_a_value_depends_on_every_batch(case):
    make, _, data = CASES[case]
    parts = batches(data)
    whole, without = fed(make, parts).compute(), fed(make, parts[1:]).compute()
    if not isinstance(whole, dict):
        whole, without = {"": whole}, {"": without}
    for name in set(whole) - {"frequencies", "most_probable"}:
        assert not torch.allclose(whole[name], without[name], rtol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_parts_merge_into_the_whole(case):
    """By torchmetrics' own reduction of the states of two processes; one that saw nothing changes nothing."""
    make, pure, data = CASES[case]
    first, second, third = batches(data)
    merged = fed(make, [first, second])
    merged.merge_state(fed(make, [third]))
    merged.merge_state(make())
    assert_same(merged.compute(), pure(*data))
    from_nothing = make()
    from_nothing.merge_state(merged)
    feed(from_nothing, first)
    feed(merged, first)
    assert_same(from_nothing.compute(), merged.compute())


@pytest.mark.parametrize("case", CASES)
def test_memory_does_not_grow_with_images_and_a_reset_begins_anew(case):
    make, _, data = CASES[case]
    metric = make()
    sizes = []
    for part in batches(data, [40, 40, 20]):
        feed(metric, part)
        states = metric.metric_state
        assert {value.dtype for value in states.values()} == {torch.float64}
        sizes.append({name: value.shape for name, value in states.items()})
    assert sizes[0] == sizes[1] == sizes[2]
    before = metric.compute()
    metric.reset()
    for part in batches(data):
        feed(metric, part)
    assert_same(metric.compute(), before)


def test_single_precision_agrees_and_half_precision_is_taken():
    x = IMAGE.float()
    found = fed(st.TopKCorrelation, batches([x])).compute()
    assert float(found) == pytest.approx(top_k_correlation(x), rel=1e-5)  # the pure function computes in float32
    assert_same(fed(st.PooledMoments, batches([x])).compute(), pooled(x))
    assert_same(fed(st.CoordinateKL, batches([x.half()])).compute(), kl_per_coordinate(x.half()))


@pytest.mark.parametrize("case", ["top-k", "moments", "kl", "cka", "frechet"])
def test_a_pivot_keeps_the_digits_that_a_far_mean_costs(case):
    make, pure, data = CASES[case]
    far = [x.float().double() + 4096 for x in data]  # exact, so that only the statistic can lose digits
    expected, made = pure(*far), type(make())

    def miss(metric):
        found = metric.compute()
        values = [(found["std"], expected["std"])] if isinstance(found, dict) else [(found, expected)]
        return max(np.abs(np.asarray(a) / np.asarray(b) - 1).max() for a, b in values)

    assert miss(fed(lambda: made(pivot=4096), batches(far))) < 1e-9
    assert 1e-14 < miss(fed(make, batches(far))) < 1e-4


@pytest.mark.parametrize("constant", [0.0, 0.1, 255.3])
def test_constants_have_no_correlation_and_no_divergence(constant):
    x = IMAGE.clone()
    x[:, 0] = constant
    assert_same(fed(lambda: st.TopKCorrelation(patch=12), batches([x])).compute(), top_k_correlation(x, patch=12))
    kl = fed(st.CoordinateKL, batches([x])).compute()
    assert bool((kl[0] == math.inf).all())
    assert_same(kl[1], kl_per_coordinate(x)[1])
    moments = fed(st.PooledMoments, batches([x[:, :1]])).compute()
    assert (float(moments["std"]), float(moments["kl"])) == (0, math.inf)
    assert moments["kurtosis"].isnan()
    assert fed(st.LinearCKA, batches([x[:, :1], OTHERS])).compute().isnan()
    assert_same(fed(st.LinearCKA, batches([x, OTHERS])).compute(), linear_cka(x, OTHERS))


def test_an_empty_area_has_no_value():
    found = fed(st.AreaMoments, batches([LATENT, torch.zeros(100, 12, 9, dtype=torch.bool)])).compute()
    assert all(value.isnan() for value in found.values())


def test_items_without_a_triangle_are_left_out():
    latent = LATENT.clone()
    latent[::3] = NOISE[::3]
    kept = torch.arange(100) % 3 > 0
    found = fed(lambda: st.Triangles(bins=18), batches([IMAGE, NOISE, latent])).compute()
    assert_same(found, triangles(IMAGE[kept], NOISE[kept], latent[kept]))
    nothing = st.Triangles()
    nothing.update(IMAGE, NOISE, NOISE)
    with pytest.raises(ArgumentError, match="at least 1 image"):
        nothing.compute()


def test_no_angles_are_most_probable_where_no_triple_of_bins_is_filled():
    """The case of the pure function's own test: 60.4 three times rounds to a sum of 180 only in wider bins."""
    first, third = math.radians(60.4), math.radians(59.2)
    noise, latent = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(first), math.sin(first)])
    latent = latent * math.sin(first) / math.sin(third)
    points = [p.double().reshape(1, 1, 1, 2) for p in (torch.zeros(2), noise, latent)]
    for bins, expected in ((180, [math.nan] * 3), (18, [60.0] * 3)):
        metric = st.Triangles(bins)
        metric.update(*points)
        assert metric.compute()["most_probable"].tolist() == pytest.approx(expected, nan_ok=True)
        assert most_probable_triangle(triangle(*points), bins) == pytest.approx(expected, nan_ok=True)


def test_sets_of_a_frechet_distance_may_come_apart():
    metric = st.FrechetDistance()
    for part in FEATURES.split(BATCHES):
        metric.update(a=part)
    metric.update(b=OTHERS.repeat(1, 2)[:55, :12])
    assert_same(metric.compute(), frechet(FEATURES, OTHERS.repeat(1, 2)[:55, :12], features="parts").value)


@pytest.mark.parametrize("case", CASES)
def test_metrics_can_be_copied_and_pickled_half_way(case):
    make, pure, data = CASES[case]
    first, *rest = batches(data)
    begun = fed(make, [first])
    for copy in (begun.clone(), pickle.loads(pickle.dumps(begun))):
        for part in rest:
            feed(copy, part)
        assert_same(copy.compute(), pure(*data))


def test_top_k_in_blocks_is_the_same(monkeypatch, smallest_blocks):
    whole = fed(st.TopKCorrelation, batches([IMAGE])).compute()
    smallest_blocks()
    monkeypatch.setattr("unsample.diagnostics.streaming.spectrum.WORKING_BYTES", 8)
    monkeypatch.setattr("unsample.diagnostics.correlation.WORKING_BYTES", 8)
    assert_same(fed(st.TopKCorrelation, batches([IMAGE])).compute(), whole)
    assert_same(fed(st.FrechetDistance, batches([FEATURES, OTHERS.repeat(1, 2)[:, :12]])).compute(), frechet_of_parts())


def frechet_of_parts():
    return frechet(FEATURES, OTHERS.repeat(1, 2)[:, :12], features="parts").value


def test_streamed_noise_lies_in_the_nulls_of_its_count():
    """At the stated rates: top-k in its floor, the spectrum in its null, the Frechet distance of halves in theirs."""
    floor = correlation_floor(48, (1, 8, 8), draws=64)
    draws = [true_noise((48, 1, 8, 8), seed=seed) for seed in range(1, 151)]
    outside, below, above = 0, [], []
    for x in draws:
        parts = [(part,) for part in x.split([20, 28])]
        outside += not floor.low <= float(fed(st.TopKCorrelation, parts).compute()) <= floor.high
        power = fed(st.SpectralPower, parts).compute()
        below.append(power["power"] < power["null_low"])
        above.append(power["power"] > power["null_high"])
    assert scipy.stats.binomtest(outside, 150, 0.05).pvalue > 1e-3
    for tail in (below, above):
        assert scipy.stats.binomtest(int(torch.stack(tail).sum()), 150 * 5, 0.025).pvalue > 1e-3
    expected = frechet_null(draws[0].flatten(1)[:, :4], 24)
    halves = [fed(st.FrechetDistance, [(x[:24].flatten(1)[:, :4], x[24:].flatten(1)[:, :4])]) for x in draws]
    values = torch.stack([half.compute() for half in halves])
    assert float(values.mean()) == pytest.approx(expected.mean, abs=4 * expected.std / math.sqrt(8))


def test_errors_over_images_are_those_of_the_mean():
    """On unrelated points each mean angle lies within 1.96 errors of its known value 95 times in 100."""
    expected = torch.tensor([angle.mean for angle in independent_angles(1.0, 256)], dtype=torch.float64)
    inside = []
    for seed in range(60):
        noise, latent = (true_noise((60, 1, 16, 16), seed=seed, draw=draw) for draw in (1, 2))
        image = torch.sign(true_noise((60, 1, 16, 16), seed=seed))
        metric = st.Triangles()
        metric.update(image, noise, latent)
        found = metric.compute()
        inside.append((found["angles"] - expected).abs() < 1.96 * found["angles_error"])
    # The known value is of first order in 1/d, and the three angles of an item are not independent.
    assert 0.89 < float(torch.stack(inside).double().mean()) < 0.99


def share(rank, size, address, directory):
    """One of several processes: each sees its batches, and of the last metric only the first sees any."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=size)
    values = {}
    for case, (make, _, data) in CASES.items():
        values[case] = fed(make, batches(data)[rank::size]).compute()
    alone = st.TopKCorrelation()
    if rank == 0:
        alone.update(IMAGE)
    values["one process alone"] = alone.compute()
    alone.update(IMAGE)  # goes on with its own sums, not with those of all
    values["own count"] = alone.count
    torch.save(values, f"{directory}/{rank}.pt")
    torch.distributed.destroy_process_group()


def assert_shared(directory, own_counts):
    for rank, count in enumerate(own_counts):
        values = torch.load(directory / f"{rank}.pt")
        for case, (_, pure, data) in CASES.items():
            assert_same(values[case], pure(*data))
        assert_same(values["one process alone"], top_k_correlation(IMAGE))
        assert int(values["own count"]) == count


def test_a_process_group_of_one_is_like_none(tmp_path):
    share(0, 1, tmp_path / "address", tmp_path)
    assert_shared(tmp_path, [200])


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path):
    torch.multiprocessing.spawn(share, (2, tmp_path / "address", tmp_path), nprocs=2)
    assert_shared(tmp_path, [200, 100])


@pytest.mark.parametrize(
    ("make", "good", "bad", "says"),
    [
        (st.TopKCorrelation, [IMAGE], [IMAGE[0]], "4 dimensions"),
        (st.TopKCorrelation, [IMAGE], [IMAGE * math.nan], "finite"),
        (st.TopKCorrelation, [IMAGE], [IMAGE[:, :1]], r"expected images \(2, 12, 9\) as before, given \(1, 12, 9\)"),
        (st.TopKCorrelation, [IMAGE], [IMAGE[:, :, :11]], "as before"),
        (lambda: st.TopKCorrelation(k=50, patch=3), [IMAGE], [IMAGE[:, :1, :, :3]], "k: expected 1 to 36"),
        (st.PooledMoments, [IMAGE], [torch.zeros(0, 3)], "at least one value"),
        (st.CoordinateKL, [IMAGE], [IMAGE[:, :, :1, :1]], "batches of one shape"),
        (st.CoordinateKL, [IMAGE], [IMAGE[0, 0, 0]], r"items \[B, ...\]"),
        (st.AreaMoments, [IMAGE], [IMAGE, torch.ones(100, 3, 3, dtype=torch.bool)], "mask"),
        (st.SpectralPower, [IMAGE], [torch.cat([IMAGE, IMAGE], 3)], "as before"),
        (st.LagCorrelation, [IMAGE], [IMAGE[:, :, :7]], "batches of one shape"),
        (st.FrechetDistance, [FEATURES, FEATURES], [FEATURES, OTHERS], "batches of one shape"),
        (st.FrechetDistance, [FEATURES, FEATURES], [], "given neither"),
        (st.LinearCKA, [FEATURES, OTHERS], [FEATURES, OTHERS[:3]], "same items"),
        (st.LinearCKA, [FEATURES, OTHERS], [FEATURES, FEATURES], "batches of one shape"),
        (st.LineDistances, [NOISE, LATENT, IMAGE], [NOISE, LATENT], "states"),
        (st.LineDistances, [NOISE, LATENT, IMAGE], [NOISE, LATENT, IMAGE, IMAGE], "batches of one shape"),
        (st.Triangles, [IMAGE, NOISE, LATENT], [IMAGE, NOISE, LATENT[:3]], "one shape"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_a_batch_that_is_refused_changes_nothing(make, good, bad, says):
    metric = make()
    feed(metric, good)
    before = {name: value.clone() for name, value in metric.metric_state.items()}
    with pytest.raises(ArgumentError, match=says):
        feed(metric, bad)
    assert all(torch.equal(before[name], value) for name, value in metric.metric_state.items())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: st.TopKCorrelation(patch=0), "patch"),
        (lambda: st.LineDistances(points=1), "points"),
        (lambda: st.LagCorrelation(reach=0), "reach"),
        (lambda: st.Triangles(bins=0), "bins"),
        (lambda: fed(st.TopKCorrelation, [[IMAGE[:31]]]).compute(), "at least 32 images"),
        (lambda: fed(st.CoordinateKL, [[IMAGE[:1]]]).compute(), "at least 2 images in all, given 1"),
        (lambda: fed(st.LinearCKA, [[FEATURES[:1], OTHERS[:1]]]).compute(), "at least 2 images"),
        (lambda: fed(st.FrechetDistance, [[FEATURES]]).compute(), "at least 2 images in all, given 0"),
        (lambda: fed(st.FrechetDistance, [[FEATURES, OTHERS]]).compute(), "same features"),
    ],
)
def test_refusals(call, says, refuses):
    refuses(call, says)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_has_no_value(case):
    with pytest.raises(ArgumentError, match="at least"):
        CASES[case][0]().compute()
