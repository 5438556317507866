"""What a run is watched by, on a disk that is full."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hnc_ds.config import LossConfig
from hnc_ds.distributed import rank
from hnc_ds.errors import UserError
from hnc_ds.monitor import Cost, Monitor
from hnc_ds.objective.terms import objective
from tests.objective.made import compared


def write_a_line(monitor: Monitor, step: int) -> None:
    made = compared()
    alike = torch.zeros(3, 2, dtype=torch.bool)
    monitor.add(
        objective(made, LossConfig(), 1.0), made, alike.long(), *torch.ones(2, 5), alike_BK=alike
    )
    monitor.write(step, {})


def meet_full_disks(folder: Path) -> None:
    for full in ("log.jsonl", "tensorboard"):
        meet_a_full_disk(folder / f"full-{full}", full)


def meet_a_full_disk(run: Path, full: str) -> None:
    run.mkdir(exist_ok=True)
    monitor = Monitor(run, 0, 4, ("swap",), 6, Cost(1, 1), torch.device("cpu"), 77)
    write_a_line(monitor, 1)
    if rank() == 0:
        written = sum(path.stat().st_size for path in (run / "tensorboard").iterdir())
        room = {"log.jsonl": 1, "tensorboard": written + 10}[full]
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        with pytest.raises(UserError) as met:
            write_a_line(monitor, 2)
        assert "rank 0" not in str(met.value)
        assert f"{run / full}: cannot be written (File too large); make room and" in str(met.value)
        assert "--resume" in str(met.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)


def test_a_full_disk_ends_all_ranks_with_the_name_of_the_file_and_no_traceback(
    run_on_ranks: Callable[..., None],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_on_ranks(2, meet_full_disks, tmp_path)
    assert "Traceback" not in capfd.readouterr().err
