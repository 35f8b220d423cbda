"""Starts that look at the image: how many steps, and where."""

import json

import pytest
import torch
from scipy import stats

import unsample as us
from unsample.methods.multistep import AdamsBashforth
from unsample.methods.starts import AUTO_SCORE, PlainNoise, parse_start, whiteness_scores, whiteness_text
from unsample.pictures.read import demo_photos

STEPS = 20


@pytest.fixture(scope="module")
def model():
    return us.load()


@pytest.fixture(scope="module")
def photos(model):
    return us.load_images(demo_photos(), size=model.image_size)


def plain(count, size=32):
    return torch.zeros((count, 3, size, size))


def test_scores_of_true_noise_are_standard_normal():
    """Reference: the normal distribution, by Kolmogorov-Smirnov; both accepted 95 times in 100."""
    noise = us.ItemNoise(0, range(2000)).draw((2000, 3, 16, 16))
    scores = whiteness_scores(plain(2000, 16), noise)
    for column in scores.T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 0.001
    assert abs(float((scores.abs().amax(1) < AUTO_SCORE).double().mean()) - 0.95) < 0.015
    assert abs(float(torch.corrcoef(scores.T)[0, 1])) < 0.06


def test_scores_against_a_naive_loop(photos):
    latent = us.ItemNoise(1, range(len(photos))).draw(photos.shape) * 0.9
    for image, one, found in zip(photos, latent, whiteness_scores(photos, latent), strict=True):
        mask = us.diagnostics.plain_mask(image[None])[0]
        values = [float(one[c, i, j]) for c in range(3) for i, j in mask.nonzero().tolist()]
        pairs = [
            float(one[c, i, j] * one[c, i + di, j + dj])
            for c in range(3)
            for i, j in mask.nonzero().tolist()
            for di, dj in ((0, 1), (1, 0))
            if i + di < 32 and j + dj < 32 and mask[i + di, j + dj]
        ]
        if len(values) < 64 or len(pairs) < 64:
            assert found.tolist() == [0, 0]
            continue
        spread = (sum(v * v for v in values) / len(values) - 1) * (len(values) / 2) ** 0.5
        assert found.tolist() == pytest.approx([spread, sum(pairs) / len(pairs) ** 0.5], rel=1e-4, abs=1e-4)


def test_scores_see_what_an_inversion_does_to_plain_areas():
    noise = us.ItemNoise(2, range(4)).draw((4, 3, 32, 32))
    weak, smooth = whiteness_scores(plain(4), 0.9 * noise), whiteness_scores(plain(4), (noise + noise.roll(1, 3)) / 2**0.5)
    assert bool((weak[:, 0] < -AUTO_SCORE).all())
    assert bool((smooth[:, 1] > AUTO_SCORE).all())


def test_an_image_without_plain_areas_says_nothing():
    checks = torch.ones((1, 3, 32, 32))
    checks[..., ::2, ::2] = checks[..., 1::2, 1::2] = -1
    assert whiteness_scores(checks, torch.zeros_like(checks)).tolist() == [[0, 0]]


def test_auto_tries_starts_in_turn_and_keeps_the_first_that_is_white(model, photos):
    """Reference: every level by itself, judged afterwards: those of so many of 50 moves, at any number of moves."""
    settings = {"steps": STEPS, "method": AdamsBashforth()}
    found = us.invert(model, photos, start=parse_start("auto"), **settings)
    alone = [us.invert(model, photos, start=us.ForwardNoise(fraction=k / 50), **settings) for k in range(1, 6)]
    white = [(whiteness_scores(photos, each.latent).abs().amax(1) < AUTO_SCORE).tolist() for each in alone]
    chosen = [next((k for k, fine in enumerate(row) if fine), 4) for row in zip(*white, strict=True)]
    assert len(set(chosen)) > 2, "several happen among the demo photos, so several are tested"
    assert [level.t for level in found.start_levels] == [20 * k for k in chosen]
    costs = [each.nfe for each in alone]
    assert costs == [STEPS - 1, STEPS - 1, STEPS - 1, STEPS - 2, STEPS - 2]
    assert list(found.costs) == [sum(costs[: k + 1]) for k in chosen]
    assert found.nfe == max(found.costs)
    wanted = torch.stack([alone[k].latent[i] for i, k in enumerate(chosen)])
    torch.testing.assert_close(found.latent, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [6, 8, 10])
def test_auto_gives_plain_photographs_more_than_the_first_level_in_few_steps(model, photos, steps):
    """A tenth of so few moves was one, which left a photograph .70 where the level of two of 50 leaves .99."""
    found = us.invert(model, photos, steps=steps, start=parse_start("auto"))
    times = torch.tensor([level.t for level in found.start_levels])
    plainest = us.diagnostics.plain_mask(photos).float().mean((1, 2)).argmax()
    assert times[plainest] > 0
    assert int((times > 0).sum()) >= 3
    assert times.max() <= 80


def test_auto_goes_as_far_as_white_needs_and_else_takes_the_whitest(model, photos):
    """DDIM in ten steps is white nowhere up to the level of 5 of 50 moves, where it ended; reference: each by itself."""
    settings = {"steps": 10, "method": us.DDIM()}
    start = parse_start("auto")
    found = us.invert(model, photos, start=start, **settings)
    tried = start.candidates(model.grid(10))
    scores = torch.stack([start.scores(photos, us.invert(model, photos, start=one, **settings).latent) for one in tried])
    white = scores < AUTO_SCORE
    first = torch.where(white.any(0), white.int().argmax(0), scores.argmin(0))
    levels = [tried[k].level(model.grid(10)).t for k in first.tolist()]
    assert [level.t for level in found.start_levels] == levels
    assert max(levels) > 80
    assert not bool(white.any(0).all()), "one of them is white at no level"
    assert found.costs[int((~white.any(0)).nonzero()[0])] == found.nfe


def test_what_auto_reached_is_told(photos):
    noise = us.ItemNoise(1, range(len(photos))).draw(photos.shape)
    unknown = int((whiteness_scores(photos, noise).abs().amax(1) == 0).sum())
    assert 0 < unknown < len(photos)
    said = whiteness_text(photos, noise * 0.5)
    assert f"reached by 0 of {len(photos)}, not by {len(photos) - unknown}, which got the whitest tried" in said
    assert said.endswith(f"{unknown} with too little plain area to tell kept the lowest")


def test_auto_in_fifty_steps_tries_one_to_twenty_of_them(model):
    grid = model.grid(50)
    tried = [start.level(grid) for start in us.AutoStart().candidates(grid)]
    assert tried == [grid[k] for k in (1, 2, 3, 4, 5, 7, 10, 15, 20)]
    slip = us.AutoStart(at_next_level=True)
    assert slip.candidates(model.grid(1)) == [us.ForwardNoise(fraction=0.02, at_next_level=True)]
    by_hand = us.Grid(model.grid(20).levels)
    assert [start.level(by_hand) for start in us.AutoStart().candidates(by_hand)] == [by_hand[k] for k in (1, 2, 3, 4, 6, 8)]


def test_auto_decides_per_item_whatever_the_batch(model, photos):
    whole = us.invert(model, photos[:4], steps=10, start=parse_start("auto"))
    apart = us.invert(model, photos[:4], steps=10, start=parse_start("auto"), batch_size=1)
    assert whole.starts == apart.starts
    torch.testing.assert_close(whole.latent, apart.latent, rtol=1e-4, atol=1e-4)


def test_a_trajectory_of_mixed_starts_survives_its_file_and_a_choice(model, photos, tmp_path):
    found = us.invert(model, photos, steps=STEPS, method=AdamsBashforth(), start=parse_start("auto"), keep=us.Keep("states"))
    assert set(found.states) == set(range(3, STEPS + 1))  # the levels that all items passed
    found.save(tmp_path / "mixed.safetensors")
    read = us.Trajectory.load(tmp_path / "mixed.safetensors")
    assert (read.starts, read.costs, read.start) == (found.starts, found.costs, 1)
    assert read.start_levels == found.start_levels
    last = found.take(torch.tensor([len(found) - 1]))
    assert torch.equal(last.latent[0], found.latent[-1])
    assert last.starts == found.starts[-1:]
    assert last.start_levels == found.start_levels[-1:]


def test_where_an_image_is_plain_an_adaptive_start_is_a_forward_start_and_elsewhere_the_inversion(model, photos):
    """Reference: the two ends of the blend."""
    grid, noise = model.grid(STEPS), us.ItemNoise(0, range(len(photos)))
    climbed = []

    def climb(k):
        climbed.append(k)
        return torch.full_like(photos, 7.0)

    x = PlainNoise(steps=2).place(photos, grid, noise, images=photos, climb=climb)
    assert climbed == [2]
    mask = us.diagnostics.plain_mask(photos)[:, None].float()
    share = torch.nn.functional.avg_pool2d(mask, 3, stride=1, padding=1, count_include_pad=False).expand_as(photos)
    fresh = us.ForwardNoise(steps=2).place(photos, grid, noise)
    assert bool((share == 1).any())
    torch.testing.assert_close(x[share == 1], fresh[share == 1])
    torch.testing.assert_close(x[share == 0], torch.full_like(x[share == 0], 7.0))


def test_an_adaptive_start_keeps_the_variance_of_noise():
    """Where the inversion's noise is white, so is the blend: closed form 1, at every share of plain pixels."""
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
    grid, count = us.Grid.of(schedule, 50), 4000
    images = torch.zeros((count, 1, 4, 4))
    images[:, :, :, 3] = 1.0  # an edge, so that the soft mask takes values in between
    other = us.ItemNoise(5, range(count)).draw(images.shape)
    level = grid[2]
    x = PlainNoise(steps=2).place(
        images, grid, us.ItemNoise(0, range(count)), images=images, climb=lambda k: level.alpha * images + level.sigma * other
    )
    implied = (x - level.alpha * images) / level.sigma
    assert implied.var(0).sub(1).abs().max() < 5 * (2 / count) ** 0.5


def test_an_adaptive_start_costs_what_a_forward_start_saves(model, photos):
    assert us.invert(model, photos[:2], steps=6, method=us.DDIM(), start=parse_start("2@plain")).nfe == 6


def test_an_adaptive_start_alone_says_what_it_needs():
    grid = us.Grid.of(us.Schedule.from_betas(us.Schedule.linear_betas()), 10)
    with pytest.raises(us.ArgumentError, match="invert gives it both"):
        PlainNoise(steps=1).place(torch.zeros(1, 1, 4, 4), grid, us.ItemNoise(0, [0]))


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("auto", us.AutoStart()),
        ("2@plain", PlainNoise(steps=2)),
        ("3@next", us.ForwardNoise(steps=3, at_next_level=True)),
    ],
)
def test_starts_people_type(text, start):
    assert parse_start(text) == start
    assert isinstance(start, us.Start)


@pytest.mark.parametrize("text", ["0@plain", "auto@plain", "@plain", "automatic"])
def test_starts_people_mistype(text):
    with pytest.raises(us.ArgumentError):
        parse_start(text)


def test_the_report_explains_every_decision(tmp_path):
    from unsample import cli

    with pytest.raises(SystemExit) as stop:
        cli.main(["invert", *map(str, demo_photos()[:3]), "--steps", "10", "--start", "auto", "--out", str(tmp_path / "run")])
    assert stop.value.code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "white where plain" in page
    assert "forward start auto: each picture its own, from timestep 0 " in page
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]["forward"] == ["auto"]
