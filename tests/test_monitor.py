"""What a run is watched by, also on a disk that is full."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hnc_ds.config import LossConfig
from hnc_ds.distributed import rank
from hnc_ds.errors import UserError
from hnc_ds.evaluation.results import ItemsHeader
from hnc_ds.metrics import measure_similarities
from hnc_ds.monitor import Cost, Monitor
from hnc_ds.objective.terms import objective
from hnc_ds.records import Result
from hnc_ds.training.checkpointing import HeldOut
from tests.objective.made import compared


def write_a_line(monitor: Monitor, step: int) -> None:
    made = compared()
    alike = torch.zeros(3, 2, dtype=torch.bool)
    numbers = alike.long(), alike.long()
    terms, found = objective(made, LossConfig(), 1.0), measure_similarities(made)
    used_BK = made.masks.negative_used_BK
    monitor.add(terms, found, used_BK, *numbers, *torch.ones(2, 5), alike_BK=alike)
    monitor.write(step, {})


def shown_by_tensorboard(run: Path) -> set[str]:
    events = EventAccumulator(str(run)).Reload()
    return set(events.Tags()["scalars"])


def test_accuracy_is_logged_by_predicate_and_class_of_attributes_under_tags_of_their_own(
    tmp_path: Path,
) -> None:
    tmp_path.joinpath("run").mkdir()
    watched = ("to the left of", "colour")
    cost, cpu = Cost(1, 1), torch.device("cpu")
    monitor = Monitor(tmp_path / "run", 0, 4, ("swap",), 6, cost, cpu, 77, watched)
    write_a_line(monitor, 1)  # all are the first of each
    monitor.close()
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert line["predicate_accuracy/to_the_left_of"] == line["hard_negative_accuracy"]
    assert "attribute_accuracy/colour" not in line
    assert "types/predicate_accuracy/to_the_left_of" in shown_by_tensorboard(tmp_path / "run")


def test_held_out_scores_of_rare_predicates_are_logged_but_not_shown_by_tensorboard(
    tmp_path: Path,
) -> None:
    tmp_path.joinpath("run").mkdir()
    monitor = Monitor(tmp_path / "run", 0, 4, (), 6, Cost(1, 1), torch.device("cpu"), 77)
    groups = [f"predicate: p{number:02}" for number in range(14)]
    rows = [Result("m", "hnc-shards", 1, "pair_accuracy", g, 0.5, 0.4, 0.6, 99) for g in groups]
    scores = {f"hnc-shards/pair_accuracy/{group}": 0.5 for group in groups}
    found = HeldOut(scores, None, rows, ItemsHeader(model="m"))
    monitor.write_held_out(1, found.scores, None, found.rare)
    monitor.close()
    names = [f"eval/hnc-shards/pair_accuracy/{group}" for group in groups]
    assert set(json.loads((tmp_path / "run" / "log.jsonl").read_text())) == {"step", *names}
    assert shown_by_tensorboard(tmp_path / "run") == {f"types/{name}" for name in names[:12]}


def meet_full_disks(folder: Path) -> None:
    for full in ("log.jsonl", "events"):
        meet_a_full_disk(folder / f"full-{full}", full)


def meet_a_full_disk(run: Path, full: str) -> None:
    run.mkdir(exist_ok=True)
    monitor = Monitor(run, 0, 4, ("swap",), 6, Cost(1, 1), torch.device("cpu"), 77)
    write_a_line(monitor, 1)
    if rank() == 0:
        written = sum(path.stat().st_size for path in run.glob("events.*"))
        room = {"log.jsonl": 1, "events": written + 10}[full]
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        with pytest.raises(UserError) as met:
            write_a_line(monitor, 2)
        assert "rank 0" not in str(met.value)
        place = {"log.jsonl": run / full, "events": run}[full]
        assert f"{place}: cannot be written (File too large); make room and" in str(met.value)
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
