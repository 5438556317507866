"""A run that hangs ends with a line that names who holds it up."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hnc_ds.distributed import rank
from hnc_ds.training import watchdog
from hnc_ds.training.watchdog import Watchdog

PATIENCE = 1.0


class Ended:
    """Takes the line in place of the end of the process."""

    def __init__(self) -> None:
        self.lines: list[str | None] = []

    def __call__(self, line: str | None) -> None:
        self.lines.append(line)

    def wait(self, seconds: float) -> list[str | None]:
        until = time.monotonic() + seconds
        while not self.lines and time.monotonic() < until:
            time.sleep(0.02)
        return self.lines


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "EVERY_SECONDS", 0.1)
    monkeypatch.setattr(watchdog, "SILENCE_SECONDS", 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("_quick")
def test_a_process_that_makes_progress_is_left_alone() -> None:
    ended = Ended()
    with Watchdog(PATIENCE, ended) as dog:
        for step in range(20):
            dog.beat(f"step {step}")
            time.sleep(0.1)
    assert ended.lines == []


@pytest.mark.usefixtures("_quick")
def test_a_single_process_that_is_stuck_reports_where() -> None:
    ended = Ended()
    with Watchdog(PATIENCE, ended) as dog:
        dog.beat("the checkpoint of step 7")
        (line,) = ended.wait(10)
    assert line is not None
    assert line.endswith("all ranks are stuck at the checkpoint of step 7")


def one_rank_is_slow(folder: Path) -> None:
    """Rank 1 does not come as far as the others, who wait for it."""
    watchdog.EVERY_SECONDS, watchdog.SILENCE_SECONDS = 0.1, 60.0
    ended = Ended()
    with Watchdog(PATIENCE, ended) as dog:
        for step in range(3 if rank() == 1 else 4):
            dog.beat(f"step {step}")
            time.sleep(0.3)
        lines = ended.wait(20)
    (folder / str(rank())).write_text(str(lines))
    if rank() == 0:
        assert lines[0] is not None
        assert "rank 1 is stuck at step 2" in lines[0]
    else:
        assert lines == [None]  # rank 0 reports for all


def test_the_rank_that_is_behind_is_named_and_all_ranks_end(
    run_on_ranks: Callable[..., None], tmp_path: Path
) -> None:
    run_on_ranks(3, one_rank_is_slow, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[0-9]")) == ["0", "1", "2"]


def one_rank_dies(folder: Path) -> None:
    watchdog.EVERY_SECONDS, watchdog.SILENCE_SECONDS = 0.1, 2.0
    ended = Ended()
    with Watchdog(600, ended) as dog:
        dog.beat(f"step {rank()}")
        time.sleep(1)
        if rank() == 1:
            (folder / "pid").write_text(str(os.getpid()))
            os._exit(0)  # without a word, and without failing the test
        lines = ended.wait(20)
    assert lines[0] is not None
    assert lines[0].startswith("rank 1 is gone; nothing was heard of it after step 1")
    (folder / "reported").touch()


def test_a_rank_that_died_is_named(run_on_ranks: Callable[..., None], tmp_path: Path) -> None:
    run_on_ranks(2, one_rank_dies, tmp_path)
    assert (tmp_path / "pid").exists()
    assert (tmp_path / "reported").exists()
