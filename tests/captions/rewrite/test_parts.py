"""Jobs of an array: the bytes of a single run, and what becomes of their answers."""

import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hnc_ds.captions import captions_file
from hnc_ds.captions.caption_stats import stats_path_of
from hnc_ds.captions.rewrite.answers import open_answers
from hnc_ds.captions.rewrite.rewrite import answers_path_of, rewrite
from hnc_ds.errors import UserError
from tests.captions.rewrite.fake_server import FakeServer, Response
from tests.captions.rewrite.running import Made, command, config

REFUSED = Response(400, b"no")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five parts of two images."""
    monkeypatch.setattr(captions_file, "CHUNK_IMAGES", 1)
    monkeypatch.setattr(captions_file, "PART_CHUNKS", 2)


def caches(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.glob("*.sqlite*"))


def prompts(server: FakeServer, start: int = 0) -> list[str]:
    return [request["messages"][0]["content"] for request in server.requests[start:]]


@pytest.fixture
def whole(made: Made, server: FakeServer, tmp_path: Path) -> Path:
    """The file of a single run."""
    out = tmp_path / "whole" / "c.jsonl.gz"
    rewrite(config(made, server, out))
    return out


@pytest.mark.parametrize("order", ["01", "10", "120"])
def test_jobs_in_any_order_give_the_bytes_of_a_single_run(
    made, server, whole, tmp_path, capsys, order
):
    out = tmp_path / "c.jsonl.gz"
    for job in order:
        assert not out.exists()
        rewrite(config(made, server, out, part=f"{job}/{len(order)}"))
    assert f"part {order[0]} of {len(order)} is done, others are not" in capsys.readouterr().out
    assert out.read_bytes() == whole.read_bytes()
    assert stats_path_of(out).read_bytes() == stats_path_of(whole).read_bytes()
    assert caches(out) == ["c.answers.sqlite"]
    assert not [*tmp_path.glob("*.parts"), *tmp_path.glob(".*.lock")]
    asked = len(server.requests)
    rewrite(config(made, server, out, part="0/2"))  # requeued
    assert "nothing to do" in capsys.readouterr().out
    rewrite(config(made, server, out, overwrite=True))
    assert out.read_bytes() == whole.read_bytes()
    assert len(server.requests) == asked


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_that_was_stopped_continues_with_its_answers(made, server, whole, tmp_path, how):
    out = tmp_path / "c.jsonl.gz"
    before = len(server.requests)
    server.delay = 0.05
    process = command(made, server, out, "--part", "0/2")
    until = time.monotonic() + 60
    while len(server.requests) < before + 20 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate(timeout=30)
    assert process.returncode in (-9, 143)
    server.delay = 0
    known = len(server.requests) - before - 4
    rewrite(config(made, server, out, part="1/2"))
    assert not out.exists()
    middle = len(server.requests)
    rewrite(config(made, server, out, part="0/2"))
    again = {*prompts(server, middle)} & {*prompts(server)[before : before + known]}
    assert not again
    assert out.read_bytes() == whole.read_bytes()
    assert stats_path_of(out).read_bytes() == stats_path_of(whole).read_bytes()
    assert caches(out) == ["c.answers.sqlite"]


def test_a_run_without_parts_finishes_the_work_of_jobs_with_their_answers(
    made, server, whole, tmp_path
):
    out, asked = tmp_path / "c.jsonl.gz", len(server.requests)
    server.trouble = lambda n: None if n < asked + 10 else REFUSED
    with pytest.raises(UserError, match="HTTP 400"):
        rewrite(config(made, server, out, part="1/2", requests=1))
    assert caches(out) == ["c.answers.part-1.sqlite"]
    server.trouble = lambda n: None
    start = len(server.requests)
    rewrite(config(made, server, out))
    assert not {*prompts(server, start)} & {*prompts(server)[asked : asked + 10]}
    assert out.read_bytes() == whole.read_bytes()
    assert caches(out) == ["c.answers.sqlite"]


@pytest.mark.parametrize("killed", [False, True])
def test_jobs_read_the_answers_of_an_earlier_run(made, server, whole, tmp_path, killed):
    cache = tmp_path / "earlier.sqlite"
    _copy(answers_path_of(whole), cache, killed)
    server.url = "http://127.0.0.1:9/v1"  # no server, and none is needed
    out = tmp_path / "c.jsonl.gz"
    for job in (0, 1):
        rewrite(config(made, server, out, part=f"{job}/2", cache=cache))
    assert out.read_bytes() == whole.read_bytes()
    assert [name for name in caches(out) if "-wal" not in name] == ["earlier.sqlite"]


@pytest.mark.slow
def test_a_cache_has_one_writer_or_one_for_each_job(tmp_path):
    cache = tmp_path / "c.sqlite"
    with open_answers(cache, (0, 3)), open_answers(cache, (2, 3)) as other:
        assert other.path.name == "c.part-2.sqlite"
        for place in ((0, 1), (2, 3), (0, 2)):
            with pytest.raises(UserError, match=r"c\.sqlite: process"), open_answers(cache, place):
                pass
    with open_answers(cache), pytest.raises(UserError), open_answers(cache, (0, 3)):
        pass


def test_the_first_of_two_answers_is_kept_and_other_files_stay(tmp_path):
    cache = tmp_path / "c[1].sqlite"
    for job, answers in enumerate(({b"a": "1"}, {b"a": "2", b"b": "2"})):
        with open_answers(cache, (job, 2)) as opened:
            for key, answer in answers.items():
                opened.put(key, answer)
    (tmp_path / "c[1].part-2.sqlite").touch()  # of a job killed at once
    (tmp_path / "c[1].part-of.sqlite").touch()
    (tmp_path / "c1.part-3.sqlite").touch()
    with open_answers(cache) as opened:
        assert (opened.get(b"a"), opened.get(b"b"), opened.get(b"c")) == ("1", "2", None)
    assert caches(cache) == ["c1.part-3.sqlite", "c[1].part-of.sqlite", "c[1].sqlite"]


def test_a_damaged_cache_of_a_job_or_an_earlier_run_is_named(made, server, tmp_path):
    out = tmp_path / "c.jsonl"
    job = tmp_path / "c.answers.part-0.sqlite"
    for broken, part in ((answers_path_of(out), "0/2"), (job, "0/2"), (job, None)):
        broken.write_bytes(b"not a database " * 100)
        with pytest.raises(UserError, match=rf"{broken.name}: the model's answers cannot be read"):
            rewrite(config(made, server, out, part=part))
        broken.unlink()
    assert not server.requests


def test_what_excludes_parts(made, server, tmp_path):
    with pytest.raises(UserError, match="rewrite: --part and --overwrite exclude each other"):
        config(made, server, tmp_path / "c.jsonl", part="0/2", overwrite=True)
    with pytest.raises(UserError, match="write NUMBER/COUNT"):
        config(made, server, tmp_path / "c.jsonl", part="2/2")


def _copy(cache: Path, copy: Path, killed: bool) -> None:
    """Copy a cache; a killed process leaves it empty, with all answers in its log."""
    with sqlite3.connect(cache) as connection:
        rows = connection.execute("SELECT key, answer FROM answers").fetchall()
    connection.close()
    script = (
        "import os, pickle, sys\n"
        "from pathlib import Path\n"
        "from hnc_ds.captions.rewrite.answers import open_answers\n"
        "with open_answers(Path(sys.argv[1])) as answers:\n"
        "    for key, answer in pickle.load(sys.stdin.buffer):\n"
        "        answers.put(key, answer)\n"
        f"    {'os._exit(9)' if killed else 'pass'}\n"
    )
    subprocess.run([sys.executable, "-c", script, str(copy)], input=pickle.dumps(rows), check=False)
    assert copy.with_name(f"{copy.name}-wal").exists() == killed
