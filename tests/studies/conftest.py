"""What tests of studies share."""

import pytest

from unsample.runs import edit
from unsample.studies.pie_bench import report


@pytest.fixture
def no_sheet(monkeypatch):
    """Figures take most of the time."""
    for module in (report, edit):
        monkeypatch.setattr(module, "edit_sheet", lambda *given: b"")
