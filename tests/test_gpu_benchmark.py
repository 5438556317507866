"""The benchmark for a CUDA device: its logic on a CPU, and what becomes of what goes wrong."""

import json
import subprocess
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.made import drawn_captions
from benchmarks.on_gpu import speed
from benchmarks.on_gpu.ground import Ground
from benchmarks.on_gpu.page import Book, Found
from hnc_ds.config import ModelConfig
from hnc_ds.model.load import load_model

CHECKOUT = Path(__file__).parent.parent


def run_gpu(out: Path, *flags: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, GPU.json and GPU.md of a run on the CPU."""
    command = [sys.executable, "benchmarks/gpu.py", "--device", "cpu", "--quick", *flags]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=CHECKOUT, capture_output=True, text=True
    )
    content = json.loads((out / "GPU.json").read_text())
    return done.returncode, content, (out / "GPU.md").read_text()


def test_the_gpu_script_runs_all_its_logic_on_a_cpu_and_says_what_that_is_worth(
    tmp_path: Path,
) -> None:
    status, content, page = run_gpu(tmp_path)
    assert status == 0, page
    assert "mean nothing" in page
    assert not content["numbers_mean_something"]
    assert {found["state"] for found in content["sections"].values()} == {"done"}, page
    rows = [row for found in content["sections"].values() for row in found["rows"]]
    assert all(min(row["samples_per_second"]) > 0 for row in rows)
    assert {"tiny: hnc_ds", "tiny: open_clip's way", "tiny, blocks compiled: hnc_ds"} <= {
        row["what"] for row in rows
    }
    checks = [check for found in content["sections"].values() for check in found["checks"]]
    assert len(checks) >= 7
    assert all(check["holds"] for check in checks)


def test_without_time_the_gpu_script_leaves_everything_out_and_says_so(tmp_path: Path) -> None:
    status, content, page = run_gpu(tmp_path, "--minutes", "0")
    assert status == 0
    states = [found["state"] for found in content["sections"].values()]
    assert all(state.startswith("left out: 0 s were left") for state in states)
    assert page.count("left out") == len(states)


def section_after_one_that(behaves: str) -> str:
    """A program that runs a section that behaves like this, and one that tells a number."""
    return f"""
import os, sys, time
from pathlib import Path
import torch
from benchmarks.on_gpu.ground import Ground
from benchmarks.on_gpu.sections import Section, run_sections
def first(ground, tell):
    tell.note("began")
    {behaves}
def second(ground, tell):
    tell.fact("answer", 42)
sections = {{"first": Section("First", first, 0), "second": Section("Second", second, 0)}}
folder = Path(sys.argv[1])
ground = Ground(torch.device("cpu"), True, folder, time.time() + 60)
run_sections(sections, sections, ground, folder / "told.jsonl")
"""


@pytest.mark.parametrize(
    ("behaves", "told", "goes_on"),
    [
        ("raise torch.OutOfMemoryError('no room')", "stopped: OutOfMemoryError: no room", True),
        ("os._exit(7)", "its process ended with status 7", False),
        ("time.sleep(600)", "no time was left", False),
    ],
)
def test_what_goes_wrong_in_a_section_is_on_the_page_with_what_was_found_before(
    tmp_path: Path, behaves: str, told: str, goes_on: bool
) -> None:
    names = ("first", "second")
    book = Book({}, False, {name: Found(name) for name in names})
    program = section_after_one_that(behaves)
    until = time.time() + (10 if "sleep" in behaves else 60)
    command = [sys.executable, "-c", program, str(tmp_path)]
    gpu.watch(command, tmp_path, until, book, names, tmp_path)
    assert book.sections["first"].notes == ["began"]
    assert told in book.sections["first"].errors[0]
    assert (book.facts.get("answer") == 42) is goes_on
    assert told in book.page()
    assert not book.holds()
    assert time.time() < until + 5


def test_without_a_cuda_device_the_gpu_script_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main() == 2
    assert capsys.readouterr().err == (
        "gpu: no CUDA device; --device cpu --quick tries the logic alone\n"
    )


@pytest.mark.parametrize(
    ("room", "expected"), [((8, 4), (8, False)), ((4, 2), (4, False)), ((1, 2), (2, True))]
)
def test_the_largest_batch_that_fits_is_taken_and_checkpointing_only_if_none_does(
    monkeypatch: pytest.MonkeyPatch, room: tuple[int, int], expected: tuple[int, bool]
) -> None:
    """``room``: the largest batch without gradient checkpointing, and with it."""
    closed: list[int] = []

    class FakePair:
        def __init__(self, _: Any, captions: list[str], *__: Any) -> None:
            self.batch, self.checkpointing = len(captions), bool(__[-1])

        def fits(self) -> bool:
            return self.batch <= (room[1] if self.checkpointing else room[0])

        def close(self) -> None:
            closed.append(self.batch)

    monkeypatch.setattr(speed, "Pair", FakePair)
    nothing: Any = None
    found = speed.largest(nothing, [("a",)] * 8, (2, 4, 8), nothing, peer=True)
    assert found is not None
    assert (found.batch, found.checkpointing) == expected
    assert found.batch not in closed[-1:]


def test_nothing_of_the_ways_stays_in_memory_once_they_are_closed(tmp_path: Path) -> None:
    ground = Ground(torch.device("cpu"), True, tmp_path, time.time() + 60)
    captions = drawn_captions(tmp_path, 4, speed.NEGATIVES)
    pair = speed.Pair(load_model(ModelConfig(), 0), captions, ground, True, False)
    assert pair.fits()
    weights = [weakref.ref(p) for towers in pair._towers for p in towers.parameters()]
    assert len(weights) > 100
    pair.close()
    assert not any(weight() is not None for weight in weights)
