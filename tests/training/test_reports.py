"""What ranks report to each other once a step is the same on all of them, and of the right step."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hnc_ds.checkpoint import complete_checkpoints
from hnc_ds.distributed import rank
from hnc_ds.errors import UserError
from hnc_ds.shards.loader import Batch, TrainingData
from hnc_ds.train import main
from hnc_ds.training.loop import Report, Reports
from hnc_ds.training.signals import Signals

from .test_interrupted import logged_steps

CPU = torch.device("cpu")


def test_reports_come_in_order_each_once_and_none_before_it_is_requested() -> None:
    reports = Reports(CPU)
    for step in range(4):
        reports.send(step, wish=10 * step, has_problem=step == 2, loss=torch.ones(()))
    assert list(reports.read(-1)) == []
    assert [report.step for report in reports.read(1)] == [0, 1]
    assert list(reports.read(2)) == [Report(2, 20, True, True, True)]
    assert list(reports.read(2)) == []
    assert [report.wish for report in reports.read(9)] == [30]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_and_gradients_that_are_not_finite_are_distinguished(value: float) -> None:
    reports = Reports(CPU)
    reports.send(0, 0, False, torch.tensor([value]), torch.zeros(1))
    reports.send(1, 0, False, torch.tensor(1.0), torch.ones(1))
    found = list(reports.read(1))
    assert [(r.is_finite, r.is_sound) for r in found] == [(False, True), (True, False)]


def agree() -> None:
    own, reports = rank(), Reports(CPU)
    reports.send(0, wish=[0, 85, 90][own], has_problem=own == 1)
    reports.send(1, 0, False, torch.tensor(math.nan if own == 2 else 1.0), torch.zeros(1))
    reports.send(2, 0, False, torch.tensor(1.0), torch.tensor([float(own == 0)]))
    assert list(reports.read(2)) == [
        Report(0, 90, True, True, True),
        Report(1, 0, False, False, True),
        Report(2, 0, False, True, False),
    ]


def test_what_one_rank_reports_all_ranks_receive(run_on_ranks: Callable[..., None]) -> None:
    run_on_ranks(3, agree)


def train_beside_a_rank_without_data(arguments: list[str]) -> None:
    """Rank 1 has no fourth batch."""
    original = TrainingData.drawn

    def drawn(data: TrainingData, step: int, *part: range) -> tuple[Batch, Any]:
        if rank() == 1 and step == 3:
            raise UserError("shard-000000.tar: is damaged")
        return original(data, step, *part)

    TrainingData.drawn = drawn  # type: ignore[method-assign]
    assert main(arguments) == 2


def train_while_one_rank_is_asked_to_stop(arguments: list[str]) -> None:
    """Rank 1 receives it in the second step."""
    original, own = Signals.wish, rank()
    seen: list[Any] = []

    def wish(stops: Signals) -> int:
        seen.append(1)
        # Two reports are sent before the first step.
        return 85 if own == 1 and len(seen) > 3 else 0

    Signals.wish = property(wish)  # type: ignore[assignment,method-assign]
    assert main(arguments) == 128 + 15
    Signals.wish = original  # type: ignore[method-assign]


def test_ranks_end_together_before_the_batch_that_one_lacks(
    arguments: list[str],
    tmp_path: Path,
    run_on_ranks: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_on_ranks(2, train_beside_a_rank_without_data, [*arguments, "--workers", "1"])
    assert "rank 1" in (error := capfd.readouterr().err)
    assert "shard-000000.tar: is damaged" in error
    assert logged_steps(tmp_path / "run") == [1, 2, 3]
    assert [path.name for path in complete_checkpoints(tmp_path / "run")] == ["step-000002"]


def test_a_request_of_one_rank_stops_all_after_the_same_step(
    arguments: list[str],
    tmp_path: Path,
    run_on_ranks: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    few = ["--log_every", "10", "--save_every", "10", "--workers", "0", "--steps", "6"]
    run_on_ranks(2, train_while_one_rank_is_asked_to_stop, [*arguments, *few])
    assert "stopped by SIGTERM after step 3 of 6" in capfd.readouterr().err
    assert [path.name for path in complete_checkpoints(tmp_path / "run")] == ["step-000003"]
