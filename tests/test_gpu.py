"""The script for a CUDA device: its logic, tried on a CPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import Page, first_that_fits
from benchmarks.gpu import Settings as GpuSettings
from benchmarks.gpu_steps import Measured
from hnc_ds.errors import UserError

ROOT = Path(__file__).parents[1]


def gpu(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_gpu_script_runs_all_of_its_logic_on_a_cpu(tmp_path: Path) -> None:
    done = gpu("--device", "cpu", "--quick", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "GPU.json").read_text())
    assert len(found["rows"]) == 6
    assert all(row["samples_per_second"] > 0 for row in found["rows"])
    assert not [note for note in found["notes"] if "FAILED" in note or "left out" in note]
    page = (tmp_path / "GPU.md").read_text()
    assert "the numbers mean nothing" in page
    assert page.count("Checked:") == 4


def test_without_time_every_section_is_left_out_and_told(tmp_path: Path) -> None:
    done = gpu("--device", "cpu", "--quick", "--minutes", 0, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "GPU.json").read_text())
    assert found["rows"] == []
    assert len(found["notes"]) > 8
    assert all("left out" in note for note in found["notes"])


def test_what_fails_in_a_section_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    page = Page(GpuSettings(device="cpu", quick=True, out=tmp_path))
    with page.section("one", 1.0):
        raise RuntimeError("broken\nin two lines")
    with page.section("two", 1.0) as go:
        assert go
    notes = json.loads((tmp_path / "GPU.json").read_text())["notes"]
    assert notes == ["one: FAILED, RuntimeError: broken"]


def test_the_largest_batch_that_fits_is_taken() -> None:
    def steps(batch: int) -> Measured:
        if batch > 8:
            raise torch.OutOfMemoryError
        return Measured(batch, 1.0, 1.0, 1.0, 0.0)

    assert first_that_fits((32, 16, 8, 4), steps).batch == 8
    with pytest.raises(UserError, match="not even a batch of 16 fits"):
        first_that_fits((32, 16), steps)
