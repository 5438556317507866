"""What several folders of tests share: rendered data, and real processes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from hnc_ds.config import ScenesConfig
from hnc_ds.distributed import leave
from hnc_ds.prepare import prepare

# Tests run on the CPU wherever they run; two ranks share what cores there are.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("OMP_NUM_THREADS", "1")


class FilesTogether(LoadFileScheduling):
    """Processes share the files of tests (``-n 2``): a file stays together, as its fixtures are
    made once, and so do all of tests/slurm, as there is one cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return "slurm" if nodeid.startswith("tests/slurm/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    return FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cluster's tests, which take longest, first."""
    items.sort(key=lambda item: "slurm" not in item.path.parts)


@pytest.fixture(scope="session")
def scene_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 96 training and 40 held-out scenes, in train/ and val/; read only."""
    folder = tmp_path_factory.mktemp("scenes")
    # Without namesakes every scene has captions, and is packed.
    scenes = ScenesConfig(
        out=folder, train=96, val=40, size=48, objects=(2, 3), namesakes=0, workers=1
    )
    return prepare(scenes)


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little LLaVA of random weights."""
    from tests.llava.little import save_llava  # and transformers with it

    return save_llava(tmp_path_factory.mktemp("llava") / "little-llava", seed=0)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven pictures of different shapes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        draw = torch.Generator().manual_seed(number)
        size = (24 + 8 * (number % 3), 40 - 4 * number, 3)
        pixels = torch.randint(256, size, generator=draw, dtype=torch.uint8)
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.fromarray(pixels.numpy()).save(folder / name, quality=95)
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 of VQA v2.0's layout, of mixed lengths, of one to eight a picture."""
    from tests.llava.little import WORDS

    draw = torch.Generator().manual_seed(5)
    rows = []
    for number in range(33):
        length = int(torch.randint(1, 30, (1,), generator=draw))
        words = [WORDS[int(torch.randint(len(WORDS), (1,), generator=draw))] for _ in range(length)]
        image = int(torch.randint(7, (1,), generator=draw))
        rows.append(
            {"question_id": 1000 + number, "image_id": image, "question": " ".join(words) + "?"}
        )
    path = tmp_path_factory.mktemp("questions") / "questions.json"
    path.write_text(json.dumps({"data_subtype": "val2014", "questions": rows}))
    return path


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
