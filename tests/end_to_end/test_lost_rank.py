"""A rank that dies ends the run with its name, and the checkpoint before can be resumed from."""

import json
import subprocess
import sys
import time
from pathlib import Path

from hnc_ds.checkpoint import complete_checkpoints

from .conftest import ROOT, environment, free_port


def start_rank(rank: int, port: int, arguments: list[object]) -> "subprocess.Popen[str]":
    """As a launcher starts it that does not watch its ranks."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "hnc_ds" / "train.py"), *map(str, arguments)],
        cwd=ROOT,
        env=environment() | {name: str(value) for name, value in (ranks | address).items()},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_rank_that_is_killed_is_named_by_the_others(scene_shards: Path, tmp_path: Path) -> None:
    cpu = json.loads((ROOT / "ds_configs" / "cpu.json").read_text())
    (tmp_path / "cpu.json").write_text(json.dumps(cpu | {"train_batch_size": 16}))
    run, shards = tmp_path / "run", scene_shards / "train"
    arguments: list[object] = ["--deepspeed_config", tmp_path / "cpu.json", "--run", run]
    arguments += ["--shards", shards, "--steps", 100_000, "--save_every", 4, "--log_every", 1]
    port = free_port()
    ranks = [start_rank(rank, port, arguments) for rank in (0, 1)]
    try:
        patience = time.monotonic() + 200
        while not complete_checkpoints(run):
            assert all(rank.poll() is None for rank in ranks), "training ended by itself"
            assert time.monotonic() < patience, "training did not come so far in time"
            time.sleep(0.1)
        ranks[1].kill()
        _, said = ranks[0].communicate(timeout=100)
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
            if rank.stderr is not None:
                rank.stderr.close()
    assert ranks[0].returncode == 2, said
    last = said.strip().splitlines()[-1]
    assert "rank 1 is gone; nothing was heard of it after" in last
    assert last.endswith("start again with --resume")
    assert complete_checkpoints(run)
