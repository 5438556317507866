"""What several folders of tests share: rendered data, and real processes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hnc_ds.config import ScenesConfig
from hnc_ds.distributed import leave
from hnc_ds.prepare import prepare

# Tests run on the CPU wherever they run; two ranks share what cores there are.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def scene_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 96 training and 40 held-out scenes, in train/ and val/; read only."""
    folder = tmp_path_factory.mktemp("scenes")
    # Without namesakes every scene has captions, and is packed.
    scenes = ScenesConfig(
        out=folder, train=96, val=40, size=48, objects=(2, 3), namesakes=0, workers=1
    )
    return prepare(scenes)


@pytest.fixture
def run_on_ranks(tmp_path: Path) -> Callable[..., None]:
    """Run a module-level function on N real gloo processes; any failure fails the test.

    A file store instead of a TCP port, so that test runs never collide on one machine.
    """

    def run(ranks: int, body: Callable[..., None], *arguments: Any) -> None:
        mp.spawn(_enter_rank, (ranks, str(tmp_path / "store"), body, arguments), ranks)

    return run


def _enter_rank(
    rank: int, ranks: int, store: str, body: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    try:
        body(*arguments)
    finally:
        leave()
