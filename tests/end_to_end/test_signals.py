"""Signals to a training as users start it: saved, one line, whose command continues it.

docs/training.md has the table.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from hnc_ds.checkpoint import complete_checkpoints

from .conftest import ROOT, environment, free_port


class Training:
    """A training in a process group of its own.

    Args:
        launcher: Command line up to the flags of training.
        flags: Of training.
        folder: Where its words go.
    """

    def __init__(self, launcher: list[str], flags: list[str], folder: Path) -> None:
        self._out = folder / "out.txt"
        self.run = Path(flags[flags.index("--run") + 1])
        with self._out.open("w") as out:
            self.process = subprocess.Popen(
                [*launcher, *flags],
                cwd=folder,
                env=environment(),
                start_new_session=True,
                stdout=out,
                stderr=out,
            )

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes():
            process.kill()
        self.process.wait()

    @property
    def said(self) -> list[str]:
        """All lines so far, of all ranks."""
        return self._out.read_text().splitlines()

    def until_step(self, step: int) -> None:
        """Wait until a step is logged."""
        log = self.run / "log.jsonl"
        self.until(lambda: log.exists() and f'"step": {step},' in log.read_text())

    def ranks(self) -> list[psutil.Process]:
        """Their processes, by their numbers."""
        found = {}
        for process in self._processes():
            with_rank = _environment_of(process).get("RANK")
            if with_rank is not None and with_rank not in found:
                found[with_rank] = process  # workers of the rank are younger
        return [found[number] for number in sorted(found)]

    def end(self) -> list[str]:
        """Lines printed after the last step, once the launcher and all ranks have ended."""
        self.until(lambda: not self._processes(), False)
        lines = self.said
        assert not [line for line in lines if "DataLoader" in line]
        steps = [number for number, line in enumerate(lines) if line.startswith("step ")]
        return lines[steps[-1] + 1 :] if steps else lines

    def _processes(self) -> list[psutil.Process]:
        """Of the training that run, oldest first; torchrun starts sessions of their own."""
        mine = str(self.run)
        found = list(psutil.process_iter(["cmdline", "status", "create_time"]))
        return sorted(
            (
                process
                for process in found
                if mine in (process.info["cmdline"] or ())
                and process.info["status"] != psutil.STATUS_ZOMBIE
            ),
            key=lambda process: process.info["create_time"],
        )

    def until(self, holds: Callable[[], bool], alive: bool = True) -> None:
        """Wait for something, which comes before the end."""
        patience = time.monotonic() + 200
        while not holds():
            assert not alive or self.process.poll() is None, self.said
            assert time.monotonic() < patience, self.said
            time.sleep(0.1)


def _environment_of(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


@pytest.fixture
def flags(scene_shards: Path, tmp_path: Path) -> list[str]:
    """Many steps, with the default of workers; nothing is saved but for a signal."""
    cpu = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    (tmp_path / "cpu.json").write_text(json.dumps(cpu | {"train_batch_size": 16}))
    settings = ["--deepspeed_config", tmp_path / "cpu.json", "--run", tmp_path / "my run"]
    settings += ["--shards", scene_shards / "train", "--preset", "hnc"]
    settings += ["--steps", 100_000, "--save_every", 100_000, "--log_every", 1]
    return [str(part) for part in settings]


def program(name: str) -> str:
    found = shutil.which(name, path=environment()["PATH"])
    assert found
    return found


def line_of(number: signal.Signals, run: Path) -> tuple[int, list[str]]:
    """The step that was saved last, and what must be printed of it but for the first word."""
    step = int(complete_checkpoints(run)[-1].name.removeprefix("step-"))
    again = f"--run {shlex.quote(str(run))} --resume"
    what = f"stopped by {number.name} after step {step} of 100000, saved in {run}"
    return step, [f"{what}; the same command with {again} continues"]


def assert_names_the_dead_rank(said: list[str], number: int = 1) -> None:
    """In the last words of the survivor; launchers add their own."""
    ours = [line for line in said if line.startswith(("train: ", "hnc-ds: "))]
    assert len(ours) == 1, said
    assert f"rank {number} is gone; nothing was heard of it after" in ours[0]
    assert ours[0].endswith("start again with --resume")
    before = said[: said.index(ours[0])]
    assert not [line for line in before if "Traceback" in line or line.startswith("frame #")]


NEVER_SAVED = """
import sys, time
from hnc_ds import checkpoint
def write(*_):
    print("saving", flush=True)
    time.sleep(600)
checkpoint.write = write
from hnc_ds.train import main
sys.exit(main())
"""


class Case(NamedTuple):
    """A signal, and the exit status."""

    number: signal.Signals
    status: int


CASES = [Case(signal.SIGTERM, 143), Case(signal.SIGUSR1, 138), Case(signal.SIGINT, 130)]


def test_a_signal_to_the_group_of_hnc_ds_saves_and_the_line_names_what_continues(
    flags: list[str], tmp_path: Path
) -> None:
    run, more, step = tmp_path / "my run", list[str](), 0
    for number, status in CASES:
        with Training([program("hnc-ds"), "train"], [*flags, *more], tmp_path) as training:
            training.until_step(step + 2)
            os.killpg(training.process.pid, number)
            said = training.end()
            assert training.process.wait() == status
        step, line = line_of(number, run)
        assert said == [f"hnc-ds: {line[0]}"]
        more = shlex.split(line[0].partition(" with ")[2])[2:3]  # --resume
        assert more == ["--resume"]
    logged = [json.loads(text)["step"] for text in (run / "log.jsonl").open()]
    assert logged == list(range(1, step + 1))


def test_ctrl_c_while_libraries_are_loaded_is_one_line(flags: list[str], tmp_path: Path) -> None:
    for launcher in ([program("hnc-ds"), "train"], [program("python"), "-m", "hnc_ds.train"]):
        with Training(launcher, flags, tmp_path) as training:
            time.sleep(3)
            os.killpg(training.process.pid, signal.SIGINT)
            said = training.end()
            assert training.process.wait() == 130
        again = "the same command with --resume starts again"
        assert said == [f"train: stopped by SIGINT before the first step; {again}"]


def test_a_second_ctrl_c_ends_at_once_and_what_was_saved_before_stays(
    flags: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(NEVER_SAVED)
    with Training([program("python"), str(script)], flags, tmp_path) as training:
        training.until_step(2)
        os.killpg(training.process.pid, signal.SIGINT)
        training.until(lambda: "saving" in training.said)
        time.sleep(1)
        os.killpg(training.process.pid, signal.SIGTERM)
        time.sleep(0.5)
        assert training.process.poll() is None
        os.killpg(training.process.pid, signal.SIGINT)
        said = training.end()
        assert training.process.wait() == 130
    again = f"--run {shlex.quote(str(training.run))} --resume continues from the last checkpoint"
    line = f"train: interrupted twice, not saved; the same command with {again}"
    assert said == ["saving", line]
    assert not complete_checkpoints(training.run)


def test_under_deepspeed_ctrl_c_saves_and_a_rank_that_is_killed_is_named(
    flags: list[str], tmp_path: Path
) -> None:
    launcher = [program("deepspeed"), "--log_level", "error", "--num_gpus", "2"]
    launcher += ["--master_port", str(free_port()), "--module", "hnc_ds.cli", "train"]
    with Training(launcher, flags, tmp_path) as training:
        training.until_step(2)
        os.killpg(training.process.pid, signal.SIGINT)
        said = training.end()
    step, line = line_of(signal.SIGINT, training.run)
    assert f"hnc-ds: {line[0]}" in said
    assert "\n".join(said).count("Traceback") <= 1  # the launcher's own
    with Training(launcher, [*flags, "--resume"], tmp_path) as training:
        training.until_step(step + 2)
        training.ranks()[1].kill()
        said = training.end()
        assert training.process.wait() != 0
    assert_names_the_dead_rank(said)


def test_under_torchrun_sigterm_saves_and_a_rank_that_is_killed_is_named(
    flags: list[str], tmp_path: Path
) -> None:
    launcher = [program("torchrun"), "--nproc-per-node", "2", "--master-port", str(free_port())]
    launcher += ["--", str(ROOT / "hnc_ds" / "train.py")]
    with Training(launcher, flags, tmp_path) as training:
        training.until_step(2)
        training.process.terminate()
        said = training.end()
        assert training.process.wait() != 0
    step, line = line_of(signal.SIGTERM, training.run)
    assert f"train: {line[0]}" in said
    with Training(launcher, [*flags, "--resume"], tmp_path) as training:
        training.until_step(step + 2)
        training.ranks()[0].kill()
        said = training.end()
        assert training.process.wait() != 0
    assert_names_the_dead_rank(said, 0)
