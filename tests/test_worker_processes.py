"""Workers leave signals to their parent, and are gone when it is."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hnc_ds.worker_processes import FORK, SPAWN

PROGRAM = """
import os, signal, sys, time
from concurrent.futures import ProcessPoolExecutor
from hnc_ds import worker_processes
if __name__ == "__main__":
    heard = []
    for number in worker_processes.SIGNALS:
        signal.signal(number, lambda number, _: heard.append(number))
    with ProcessPoolExecutor(2, mp_context=getattr(worker_processes, sys.argv[1])) as pool:
        waiting = [pool.submit(os.getpid) for _ in range(2)]
        for number in worker_processes.SIGNALS:
            os.killpg(0, number)  # while they start
        first = {one.result() for one in waiting}
        for number in worker_processes.SIGNALS:
            os.killpg(0, number)
        assert len(heard) == 6, heard
        [pool.submit(time.sleep, 1000) for _ in range(2)]
        print(*pool._processes, flush=True)
        assert first <= set(pool._processes)
        time.sleep(1000)
"""


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("method", ["SPAWN", "FORK"])
def test_a_signal_to_the_group_leaves_workers_alone_and_they_go_when_their_parent_is_killed(
    method: str, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    command = [sys.executable, str(script), method]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        line = parent.stdout.readline()
        workers = [int(word) for word in line.split()]
        assert len(workers) == 2, parent.stderr.read()
        assert all(map(is_running, workers))
        parent.send_signal(signal.SIGKILL)
        patience = time.monotonic() + 20
        while any(map(is_running, workers)):
            assert time.monotonic() < patience, "a worker outlives its parent"
            time.sleep(0.05)
        assert parent.stderr.read() == ""


@pytest.mark.parametrize("context", [SPAWN, FORK], ids=["spawn", "fork"])
def test_a_worker_that_is_stuck_can_be_ended_by_its_parent(
    context: multiprocessing.context.BaseContext,
) -> None:
    worker = context.Process(target=time.sleep, args=(1000,), daemon=True)
    worker.start()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == -signal.SIGKILL
