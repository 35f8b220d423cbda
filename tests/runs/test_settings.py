import pytest

import unsample as us
from unsample.runs.settings import SampleSettings


def test_settings_know_the_negative_and_older_manifests_do_not(toy):
    model = toy()
    made = SampleSettings.of(model, label="0", guidance=2.0, negative="1")
    older = made.model_dump(exclude={"negative"})
    assert (made.negative, SampleSettings(**older).negative) == ("1", None)
    with pytest.raises(us.ArgumentError, match="outside this model's classes"):
        SampleSettings.of(model, label="0", guidance=2.0, negative="9")
