"""experiments/itm.py runs from scenes to its page, and resumes without doing anything again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import itm
from experiments.itm import OBJECTIVES, ROWS, Settings, run


@pytest.mark.slow
def test_the_comparison_of_cross_encoders_is_made_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forked_hnc_ds: Callable[..., None]
) -> None:
    monkeypatch.setattr(itm, "hnc_ds", forked_hnc_ds)
    settings = Settings(out=tmp_path, steps=2, train=40, val=12, batch=8, layers=2, width=64)
    run(settings)
    page = (tmp_path / "ITM.md").read_text()
    for title in (*OBJECTIVES, *ROWS):
        assert f" {title} |" in page
    before = [settings.results(name).stat().st_mtime_ns for name in OBJECTIVES]
    run(settings)
    logs = [settings.run(name).with_suffix(".log").read_text() for name in OBJECTIVES]
    assert [log.count("is done already") for log in logs] == [1, 1]
    assert [settings.results(name).stat().st_mtime_ns for name in OBJECTIVES] == before
    assert (tmp_path / "ITM.md").read_text() == page
