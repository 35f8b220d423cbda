import pytest
import torch

import unsample as us

CPU = torch.device("cpu")


def test_conditions_by_index_and_name():
    conditioner = us.ClassConditioner(("ant", "bee", "sea slug"), null=7)
    assert conditioner(["bee", 0, None, "2", "sea slug"], CPU).tolist() == [1, 0, 7, 2, 2]


@pytest.mark.parametrize("condition", [3, -1, "3", "-1"])
def test_classes_out_of_range(condition):
    with pytest.raises(us.ArgumentError, match=r"outside this model's classes 0\.\.2"):
        us.ClassConditioner(("a", "b", "c"), null=3)([condition], CPU)


@pytest.mark.parametrize("condition", ["wasp", "", "--1", "²", "1.5", "-"])
def test_unknown_class_names(condition):
    with pytest.raises(us.UnknownNameError, match="unknown class"):
        us.ClassConditioner(("ant", "bee", "wesp"), null=3)([condition], CPU)


def test_a_model_without_a_null_class_needs_a_label():
    with pytest.raises(us.ArgumentError, match="give a label"):
        us.ClassConditioner(("a", "b"), null=None)([None], CPU)


def test_guidance_wraps_only_when_it_changes_something(toy):
    model = toy()
    assert isinstance(model.denoiser([0, 1], 3.0), us.Guided)
    assert isinstance(model.denoiser([0, 1], 1.0), us.NetworkDenoiser)
    assert isinstance(model.denoiser(), us.NetworkDenoiser)


def test_guidance_without_a_condition_is_refused(toy):
    model = toy()
    with pytest.raises(us.ArgumentError, match="needs a condition to guide towards"):
        model.denoiser(None, 2.0)
    for conditions in (None, [None, None]):
        with pytest.raises(us.ArgumentError, match="needs a condition to guide towards"):
            us.sample(model, us.draw_noise(model, 2), steps=2, condition=conditions, guidance=2.0)


def test_a_condition_for_a_model_without_conditions_is_refused(toy):
    from unsample.models.analytic import gaussian

    model = gaussian(toy().schedule, torch.ones(4), shape=(1, 2, 2))
    for given in ({"conditions": [1]}, {"conditions": None, "negative": [1]}):
        with pytest.raises(us.ArgumentError, match="model 'gaussian' takes no condition"):
            model.denoiser(**given)
    assert isinstance(model.denoiser([None, None]), us.NetworkDenoiser)


def test_grid_has_the_settings_of_the_models_own_sampler(toy):
    schedule = toy().schedule
    model = us.Model(lambda x, t, c: x, schedule, (3, 8, 4), spacing="leading", steps_offset=1, clean="first")
    assert model.grid(5) == us.Grid.of(schedule, 5, spacing="leading", steps_offset=1, clean="first")
    assert model.grid(5) != us.Grid.of(schedule, 5)


def test_pixel_codec_is_the_identity():
    x = torch.rand((1, 3, 2, 2))
    assert us.PixelCodec().encode(x) is x
    assert us.PixelCodec().decode(x) is x
    assert us.PixelCodec().scale == 1
