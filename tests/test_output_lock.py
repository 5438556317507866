"""One writer for one output, whatever becomes of its process and whatever the disk can lock."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hnc_ds import output_lock
from hnc_ds.errors import UserError
from hnc_ds.output_lock import Holder, only_writer

HOLD = """
import sys
from pathlib import Path
from hnc_ds.output_lock import only_writer
with only_writer(Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))):
    print("held", flush=True)
    sys.stdin.read()
"""
Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hold]:
    """Hold the lock of an output in another process, until it is killed or its input closed."""
    monkeypatch.setattr(output_lock, "RETRY_SECONDS", 0.2)
    started: list[subprocess.Popen[str]] = []

    def start(out: Path, part: int = 0, parts: int = 1) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(out), str(part), str(parts)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def can_have(out: Path, place: tuple[int, int] = (0, 1)) -> bool:
    try:
        with only_writer(out, place):
            return True
    except UserError:
        return False


def test_the_second_writer_is_refused_with_a_line_that_names_the_first(
    hold: Hold, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "a"
    process = hold(out)
    (tmp_path / "link").symlink_to(out)  # the same under another name
    for name in (out, tmp_path / "runs" / ".." / "runs" / "a", tmp_path / "link"):
        with pytest.raises(UserError, match=rf"process {process.pid} on \S+ .* since 20\d\d-"):
            only_writer(name).__enter__()
    process.communicate()
    assert can_have(out)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == []


def test_a_killed_writer_leaves_no_lock(hold: Hold, tmp_path: Path) -> None:
    process = hold(tmp_path / "a")
    process.kill()
    process.wait()
    assert list(tmp_path.iterdir()) == [tmp_path / ".a.lock"]
    assert can_have(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_parts_share_an_output_but_not_a_part_nor_with_who_writes_all(
    hold: Hold, tmp_path: Path
) -> None:
    out = tmp_path / "a[1].jsonl"
    hold(out, 1, 3)
    assert [can_have(out, (part, 3)) for part in range(3)] == [True, False, True]
    assert not can_have(out)
    whole = tmp_path / "b"
    hold(whole)
    assert not can_have(whole, (2, 3))


def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(
    hold: Hold, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        only_writer(tmp_path / "a").__enter__()
        if not os.fork():
            os.read(reading, 1)  # outlives its parent
        os._exit(0)
    os.waitpid(parent, 0)
    try:
        assert can_have(tmp_path / "a")
    finally:
        os.write(writing, b"x")


def of_another_machine(out: Path, count: int) -> None:
    holder = Holder("node7", "another", 7, "2026-01-01 10:00:00", "t", f"{count:010d}")
    out.with_name(f".{out.name}.lock").write_bytes(msgspec.json.encode(holder))


@pytest.mark.parametrize("locks", [True, False], ids=["disk with locks", "without"])
def test_on_another_machine_only_a_holder_that_keeps_counting_has_the_lock(
    locks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    out, counts = tmp_path / "a", iter(range(1, 100))
    monkeypatch.setattr(output_lock, "LEASE", 0.4)
    monkeypatch.setattr(output_lock, "RETRY_SECONDS", 0.2)
    if not locks:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    of_another_machine(out, 0)
    assert can_have(out)
    assert "process 7 on node7 was writing it; waiting" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []

    of_another_machine(out, 0)
    with monkeypatch.context() as alive:
        pause = output_lock.time.sleep
        alive.setattr(
            output_lock.time,
            "sleep",
            lambda seconds: (of_another_machine(out, next(counts)), pause(seconds)),
        )
        with pytest.raises(UserError, match="process 7 on node7 has been writing it since 2026-01"):
            only_writer(out).__enter__()


def test_the_holder_of_the_lock_keeps_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_lock, "RENEWED", 0.01)
    with only_writer(tmp_path / "a"):
        lock = tmp_path / ".a.lock"
        sizes, counts = set(), set()
        while len(counts) < 3:
            content = lock.read_bytes()
            sizes.add(len(content))
            counts.add(msgspec.json.decode(content, type=Holder).count)
    assert len(sizes) == 1


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a: cannot be written"):
        only_writer(tmp_path / "file" / "a").__enter__()


def test_an_output_that_is_a_link_to_itself_is_locked_like_any_other(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.symlink_to(out)
    with only_writer(out):
        assert (tmp_path / ".out.jsonl.lock").is_file()
