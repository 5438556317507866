"""Signals to stages with their default workers: the exit code, one line, and what is left."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM, SIGUSR1
from typing import NamedTuple

import pytest

from hnc_ds.checkpoint import CheckpointFiles, write_files
from hnc_ds.config import ModelConfig
from hnc_ds.interruptions import (
    AFTER,
    SAME_SECONDS,
    SIGNALS,
    Interrupted,
    signals_cancel,
    signals_raise,
)
from hnc_ds.model.load import WEIGHTS_NAME, load_model
from tests.captions.test_generate import scene_graphs

pytestmark = pytest.mark.slow

IMAGES = 3200
CONTINUES = AFTER["generate"]
Ready = Callable[[int], bool]


@pytest.fixture(autouse=True)
def hook_and_handlers_of_the_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that was stopped keeps its own, as its process ends; this one does not."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Ended(NamedTuple):
    status: int
    errors: str
    """What it and its workers wrote."""


def stage(arguments: list[object]) -> list[str]:
    return [sys.executable, "-m", "hnc_ds.cli", *map(str, arguments)]


def generate(graphs: Path, out: Path) -> list[object]:
    return ["generate", "--scene-graphs", graphs, "--out", out, "--types", "object"]


def stop(arguments: list[object], ready: Ready, sent: tuple[int, ...], group: bool) -> Ended:
    """Start a stage, and send it signals once it is in the middle of its work."""
    process = subprocess.Popen(
        stage(arguments),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + 100
        while not ready(process.pid) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        for number in sent:
            if process.poll() is None:
                (os.killpg if group else os.kill)(process.pid, number)
            time.sleep(SAME_SECONDS + 0.1 if len(sent) > 1 else 0)
        # Workers have stderr too: it ends when the last of them has.
        errors = process.communicate(timeout=60)[1]
    except BaseException:
        os.killpg(process.pid, SIGKILL)
        raise
    return Ended(process.returncode, errors)


def has_workers(pid: int) -> bool:
    try:
        return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) > 1
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scene_graphs(tmp_path_factory.mktemp("graphs") / "g.json", IMAGES)


@pytest.fixture(scope="module")
def uninterrupted(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "c.jsonl"
    subprocess.run(stage(generate(graphs, out)), check=True)
    return out


@pytest.mark.parametrize(
    ("sent", "group", "status", "line"),
    [
        ((SIGTERM,), False, 143, f"by SIGTERM; {CONTINUES}"),
        ((SIGTERM, SIGTERM), True, 143, f"by SIGTERM; {CONTINUES}"),
        ((SIGINT,), True, 130, f"by Ctrl-C; {CONTINUES}"),
        ((SIGUSR1,), True, 138, f"by SIGUSR1; {CONTINUES}"),
        ((SIGKILL,), False, -9, None),
    ],
    ids=["TERM", "TERM twice to the group", "Ctrl-C", "USR1 to the group", "KILL"],
)
def test_a_stage_that_is_stopped_leaves_no_worker_and_the_same_command_continues(
    sent: tuple[int, ...],
    group: bool,
    status: int,
    line: str | None,
    graphs: Path,
    uninterrupted: Path,
    tmp_path: Path,
) -> None:
    out, parts = tmp_path / "c.jsonl", tmp_path / "c.jsonl.parts" / "part-00000"
    command = generate(graphs, out)
    ready = has_workers if line else lambda _: parts.exists()
    ended = stop(command, ready, sent, group)
    assert ended == (status, f"hnc-ds: generate was stopped {line}\n" if line else "")
    assert not out.exists()
    assert [path.name for path in tmp_path.glob(".*.lock")] == ([] if line else [".c.jsonl.lock"])
    if not line:
        subprocess.run(stage(command), check=True)
        assert out.read_bytes() == uninterrupted.read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "c.stats.json"]


def test_a_second_ctrl_c_ends_a_stage_at_once(graphs: Path, tmp_path: Path) -> None:
    command = generate(graphs, tmp_path / "c.jsonl")
    ended = stop(command, has_workers, (SIGINT, SIGINT), True)
    assert ended.status == 130
    assert ended.errors.startswith("hnc-ds: generate was stopped by Ctrl-C")
    assert ended.errors.count("\n") == 1


def test_two_of_a_kind_at_once_are_refused_with_who_is_at_work(
    graphs: Path, tmp_path: Path
) -> None:
    command = generate(graphs, tmp_path / "c.jsonl")
    second: list[subprocess.CompletedProcess[str]] = []

    def start_another(pid: int) -> bool:
        if has_workers(pid):
            os.kill(pid, SIGSTOP)  # else it may be done before the other one has begun
            run = subprocess.run(stage(command), capture_output=True, text=True, check=False)
            os.kill(pid, SIGCONT)
            second.append(run)
        return bool(second)

    assert stop(command, start_another, (SIGTERM,), False).status == 143
    assert second[0].returncode == 2
    assert "c.jsonl: process " in second[0].stderr
    assert "has been writing it since" in second[0].stderr
    assert second[0].stderr.count("\n") == 1


def test_an_evaluation_that_is_stopped_leaves_nothing_half_written(
    scene_shards: Path, tmp_path: Path
) -> None:
    clip = load_model(ModelConfig(), seed=0)
    weights = {n: t.detach() for n, t in clip.state_by_open_clip_name().items()}
    (tmp_path / "model").mkdir()
    made = CheckpointFiles({WEIGHTS_NAME: weights}, clip.config, {}, {})
    write_files(tmp_path / "model", made, tmp_path / "model")
    out = tmp_path / "results" / "val.json"
    command: list[object] = ["evaluate", tmp_path / "model", "--shards", scene_shards / "train"]
    ended = stop([*command, "--batch", 8, "--out", out], has_a_child, (SIGTERM,), True)
    assert ended.status == 143
    assert (
        ended.errors.splitlines()[-1]
        == f"hnc-ds: evaluate was stopped by SIGTERM; {AFTER['evaluate']}"
    )
    assert "Traceback" not in ended.errors
    assert not out.parent.exists()


class Deaf:
    """Where no exception can be raised."""

    def __del__(self) -> None:
        signal.raise_signal(SIGTERM)
        time.sleep(0.01)


def be_deaf_for_a_moment() -> None:
    with signals_raise("generate"):
        Deaf()
        time.sleep(10)


def test_a_signal_is_not_lost_where_no_exception_can_be_raised() -> None:
    with pytest.raises(Interrupted) as raised:
        be_deaf_for_a_moment()
    assert raised.value.number == SIGTERM
    for number in SIGNALS:  # of a process that ends they stay ignored
        assert signal.getsignal(number) is signal.SIG_IGN
        signal.signal(number, signal.SIG_DFL if number != SIGINT else signal.default_int_handler)


def has_a_child(pid: int) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("number", "status"), [(SIGTERM, 143), (SIGKILL, -9)])
def test_a_demo_that_is_stopped_stops_its_stage(number: int, status: int, tmp_path: Path) -> None:
    command: list[object] = ["demo", "--scenes", tmp_path / "s", "--out", tmp_path / "runs"]

    def draws(_: int) -> bool:
        return len(list(tmp_path.glob("s/images/*.jpg"))) > 20

    ended = stop(command, draws, (number,), False)
    assert ended.status == status
    own = [f"hnc-ds: demo was stopped by SIGTERM; {CONTINUES}"] if status == 143 else []
    lines = [line for line in ended.errors.splitlines() if line.startswith("hnc-ds: ")]
    assert lines == [f"hnc-ds: scenes was stopped by SIGTERM; {CONTINUES}", *own]
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_a_signal_in_an_event_loop_cancels_its_work_and_is_raised_after_it(number):
    """It comes in a task that is never awaited; raised there, asyncio would report or lose it."""
    ended, reported = [], []

    async def child() -> None:
        os.kill(os.getpid(), number)
        await asyncio.sleep(0)

    async def work() -> None:
        await asyncio.gather(asyncio.sleep(0), return_exceptions=True)
        children = [asyncio.ensure_future(child())]
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(children)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    task = loop.create_task(work())
    cancelled = signals_cancel(lambda: loop.call_soon_threadsafe(task.cancel))
    with pytest.raises(Interrupted) as stopped, signals_raise("rewrite"), cancelled:
        loop.run_until_complete(task)
    loop.close()
    gc.collect()
    assert stopped.value.number == number
    assert len(ended) == 1
    assert reported == []
