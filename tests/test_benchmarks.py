"""The benchmarks run, agree where they should, and compute right. No test here looks at a speed."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from hnc_ds.captions.formats.scene_graphs import ReadCounts, read_scene_graphs
from hnc_ds.errors import UserError
from hnc_ds.records import SceneGraph
from speed.collectives import SENT
from speed.graphs import write_graphs
from speed.memory import peak_mebibytes
from speed.ranks import Ranks
from speed.results import as_json, as_markdown, from_json, gpu_line
from speed.run import MEASUREMENTS, Settings
from speed.timing import Check, Clock, Comparison, Table, Timing, alternate, timed

CHECKOUT = Path(__file__).parent.parent


def compared(clock: Clock = "wall", count: int | None = 12, found: float = 0.0) -> Comparison:
    """Ours against theirs in three rounds: 2, 4 and 3 times as fast on the wall, 5 by CPU time."""
    return Comparison(
        clock=clock,
        baseline="theirs",
        timings={
            "ours": (Timing(1, 1), Timing(2, 1), Timing(3, 1)),
            "theirs": (Timing(2, 5), Timing(8, 5), Timing(9, 5)),
        },
        checks=(Check("difference", found, 0.5),),
        notes=("A note.",),
        items="images",
        count=count,
    )


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a quick run of all measurements, started by path, wrote to."""
    out = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "speed/run.py", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_every_measurement_gives_positive_times_and_its_implementations_agree(
    quick_run: Path,
) -> None:
    content: dict[str, Any] = json.loads((quick_run / "RESULTS.json").read_text())
    assert list(content["measurements"]) == list(MEASUREMENTS)
    for name, measured in content["measurements"].items():
        assert measured["baseline"] in measured["variants"], name
        assert measured["checks"], name
        assert all(check["found"] <= check["allowed"] for check in measured["checks"]), name
        for variant in measured["variants"].values():
            assert len(variant["wall_seconds"]) == len(variant["cpu_seconds"]) >= 1
            assert min(variant["wall_seconds"] + variant["cpu_seconds"]) > 0, name


@pytest.mark.slow
def test_the_page_states_machine_versions_and_that_a_quick_run_means_nothing(
    quick_run: Path,
) -> None:
    page = (quick_run / "RESULTS.md").read_text()
    for fact in ("date", "processor", "cores", "torch threads", "torch", "webdataset"):
        assert f"| {fact} | " in page
    for title in MEASUREMENTS.values():
        assert f"## {title}" in page
    assert "mean nothing" in page


def test_speeds_are_compared_round_by_round() -> None:
    assert compared("wall").speed_up("ours") == (3, 2, 4)
    assert compared("cpu").speed_up("ours") == (5, 5, 5)


def test_with_a_count_the_measure_is_items_per_second_else_seconds() -> None:
    assert compared(count=12).measured("ours", "wall") == (6, 4, 12)
    assert compared(count=None).measured("ours", "wall") == (2, 1, 3)


def test_the_page_has_medians_ranges_and_failed_checks() -> None:
    page = as_markdown({"cores": "2"}, {"name": "A title"}, {"name": compared(found=0.6)}, False)
    assert "| ours | 6 (4 - 12) | 12 (12 - 12) | 3 (2 - 4) |" in page
    assert "**FAILED**: difference: 0.6, allowed 0.5." in page
    assert "mean nothing" not in page


def test_tables_of_other_quantities_follow_the_times() -> None:
    table = Table("MB", ("sent", "received"), {"ours": (1.5, 200.0)})
    with_table = replace(compared(), tables=(table,))
    page = as_markdown({}, {"name": "A title"}, {"name": with_table}, False)
    assert "| MB | sent | received |\n|---|---|---|\n| ours | 1.5 | 200 |\n" in page


def test_the_page_states_whether_a_gpu_has_run_its_part(tmp_path: Path) -> None:
    assert "No CUDA device has run this version yet" in gpu_line(tmp_path)
    (tmp_path / "GPU.json").touch()
    assert "[GPU.md](GPU.md)" in gpu_line(tmp_path)


@pytest.mark.parametrize(("found", "holds"), [(0.5, True), (0.51, False), (float("nan"), False)])
def test_a_check_holds_up_to_what_is_allowed(found: float, holds: bool) -> None:
    assert Check("difference", found, 0.5).holds is holds


def test_implementations_take_turns_after_a_warmup_turn() -> None:
    turns: list[str] = []
    variants = {name: lambda name=name: turns.append(name) for name in "AB"}
    timings = alternate(variants, rounds=3)
    assert "".join(turns) == "AB" + "ABABAB"
    assert [len(timings[name]) for name in "AB"] == [3, 3]


def test_cpu_time_includes_child_processes() -> None:
    work = [sys.executable, "-c", "while __import__('time').process_time() < 0.3: pass"]
    assert timed(lambda: subprocess.run(work, check=True)).cpu >= 0.25


def test_memory_is_that_of_the_command_and_its_children_together() -> None:
    child = (
        f"subprocess.Popen([{sys.executable!r}, '-c', \"x = bytearray(2**27); input()\"], stdin=-1)"
    )
    own = f"import subprocess, time; child = {child}; x = bytearray(2**27); time.sleep(1)"
    peak = peak_mebibytes([sys.executable, "-c", f"{own}; child.stdin.close(); child.wait()"])
    assert 256 < peak < 400


def test_a_command_that_fails_is_reported_with_what_it_wrote() -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised:
        peak_mebibytes([sys.executable, "-c", "raise SystemExit('no graphs')"])
    assert "no graphs" in raised.value.output


def test_random_graphs_are_as_dense_as_gqas_and_left_and_right_agree_with_the_boxes(
    tmp_path: Path,
) -> None:
    counts = ReadCounts()
    graphs = list(read_scene_graphs(write_graphs(tmp_path / "g.json", 400, seed=0), counts))
    assert counts.images == 400
    objects = [found for graph in graphs for found in graph.objects.values()]
    relations = [relation for found in objects for relation in found.relations]
    sides = [relation for relation in relations if relation.name.startswith("to the ")]
    assert 15 < len(objects) / 400 < 18
    assert 9 < sum(len(found.attributes) for found in objects) / 400 < 12
    assert 47 < len(relations) / 400 < 54
    assert 0.87 < len(sides) / len(relations) < 0.91
    assert all(_lie_as_reported(graph) for graph in graphs)


def _lie_as_reported(graph: SceneGraph) -> bool:
    """Whether each left and right is true of the boxes' middles, and message from both ends."""
    message = {
        (one, relation.name, relation.object)
        for one, found in graph.objects.items()
        for relation in found.relations
    }
    middle = {one: found.x + found.w / 2 for one, found in graph.objects.items()}
    return all(
        middle[one] < middle[other] and (other, "to the right of", one) in message
        for one, name, other in message
        if name == "to the left of"
    )


def test_graphs_can_come_again_under_other_ids(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "g.json", 7, seed=0, different=3)
    graphs = [graph.objects for graph in read_scene_graphs(path)]
    assert [graphs.index(found) for found in graphs] == [0, 1, 2, 0, 1, 2, 0]


def test_an_unknown_measurement_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'loader'"):
        Settings(names=("loadr",))


def test_measurements_are_read_back_as_they_were_written() -> None:
    machine = {"date": "today"}
    found = {"loss": replace(compared(), tables=(Table("sent", ("MB",), {"ours": (1.5,)}),))}
    assert from_json(as_json(machine, found, quick=False)) == (machine, found)


def adds_up() -> Callable[[int], int]:
    """On a rank: its number plus what it is given; the second rank refuses 13."""

    def work(given: int) -> int:
        if given == 13 and dist.get_rank() == 1:
            raise ValueError("not that one")
        if given == 13:
            dist.barrier()  # waits for the other for ever
        return given + dist.get_rank()

    return work


@pytest.mark.slow
def test_ranks_return_in_order_and_a_failure_of_one_is_raised(tmp_path: Path) -> None:
    with Ranks(tmp_path / "ranks", 2, adds_up) as ranks:
        assert ranks.ask(5) == [5, 6]
        with pytest.raises(RuntimeError, match=r"rank 1: .*not that one"):
            ranks.ask(13)


def test_what_a_rank_sends_is_counted_by_ring_algorithms() -> None:
    """Of four ranks; a row of 4 floats has 16 bytes."""
    row, four_rows = torch.zeros(4), torch.zeros(16)
    rows = [torch.zeros(4) for _ in range(4)]
    assert SENT["all_reduce"]((four_rows, None), 4) == 2 * 3 * 16
    assert SENT["all_gather"]((rows, row), 4) == 3 * 16
    assert SENT["all_gather_into_tensor"]((four_rows, row), 4) == 3 * 16
    assert SENT["reduce_scatter_tensor"]((row, four_rows), 4) == 3 * 16
    assert SENT["broadcast"]((four_rows, 0), 4) == 3 * 16
    assert SENT["scatter"]((row, rows, 0), 4) == 3 * 16
    assert SENT["scatter"]((row, None, 1), 4) == 0
