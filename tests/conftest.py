"""What several folders of tests share: rendered data, and real processes."""

import gc

gc.disable()  # until the libraries and the tests are imported

import json
import multiprocessing
import os
import shlex
import sys
from collections.abc import Callable
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import HealthCheck, settings
from msgspec import structs
from PIL import Image
from xdist.scheduler import LoadFileScheduling

from hnc_ds.config import PackConfig, ScenesConfig
from hnc_ds.demo import prepare
from hnc_ds.distributed import destroy_process_group
from hnc_ds.shards.pack import pack
from hnc_ds.shards.reader import ShardReader

# No test has a time limit of its own: machines are shared.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

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


PRELOADED = ["tests.preloaded"]
"""What ranks would else import, each for itself."""

SLOW_FOLDERS = {"damage", "distributed", "end_to_end", "slurm"}
"""All tests of these are slow, and those that start ranks."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The cluster's tests, which take longest, first, and then the other slow ones."""
    for item in items:
        has_ranks = "run_on_ranks" in getattr(item, "fixturenames", ())
        if has_ranks or SLOW_FOLDERS & {*item.path.parts}:
            item.add_marker("slow")
    items.sort(
        key=lambda item: ("slurm" not in item.path.parts, item.get_closest_marker("slow") is None)
    )


def pytest_collection_finish() -> None:
    """Garbage collections, of which DeepSpeed starts two a training, skip the objects of
    libraries."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def scene_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 96 training and 12 held-out scenes, in train/ and val/; read only."""
    folder = tmp_path_factory.mktemp("scenes")
    # Without duplicate_shapes every scene has captions, and is packed.
    scenes = ScenesConfig(
        out=folder, train=96, val=12, size=48, objects=(2, 3), duplicate_shapes=0, workers=1
    )
    return prepare(scenes)


@pytest.fixture(scope="session")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of three held-out scenes, for models that score pair by pair; read only."""
    scenes = ScenesConfig(
        out=tmp_path_factory.mktemp("few"),
        train=2,
        val=3,
        size=48,
        objects=(2, 2),
        duplicate_shapes=0,
        workers=1,
    )
    return prepare(scenes) / "val"


@pytest.fixture(scope="session")
def plain_shards(scene_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training scenes with captions that have lost their negatives; read only: in some/ every
    second one and all of image 0, in none/ all."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "images").mkdir()
    reader = ShardReader(scene_shards / "train")
    for name in ("some", "none"):
        lines = []
        for number in range(len(reader)):
            sample = reader.sample(number)
            (folder / "images" / f"{sample.image_id}.jpg").write_bytes(reader.image_bytes(number))
            groups = [
                group
                if name == "some" and number and place % 2
                else structs.replace(group, negatives=())
                for place, group in enumerate(sample.groups)
            ]
            lines.append(msgspec.json.encode({"image_id": sample.image_id, "groups": groups}))
        captions = folder / f"{name}.jsonl"
        captions.write_bytes(b"\n".join(lines))
        images, out = (folder / "images",), folder / name
        pack(PackConfig(captions=captions, images=images, out=out, workers=1))
    return folder


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA of random weights."""
    from tests.llava.tiny_llava import save_llava  # and transformers with it

    return save_llava(tmp_path_factory.mktemp("llava") / "little-llava", seed=0)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of different shapes."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(7):
        draw = torch.Generator().manual_seed(number)
        size = (24 + 8 * (number % 3), 40 - 4 * number, 3)
        pixels = torch.randint(256, size, generator=draw, dtype=torch.uint8)
        name = f"COCO_val2014_{number:012d}.jpg"
        Image.fromarray(pixels.numpy()).save(folder / name, quality=95)
    return folder


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """33 of VQA v2.0's layout, of mixed lengths, of one to eight an image."""
    from tests.llava.tiny_llava import WORDS

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

    The processes fork from a server that has imported the libraries, which takes seconds a process.
    A file store instead of a TCP port, so that test runs never collide on one machine.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)

    def run(ranks: int, body: Callable[..., None], *arguments: Any) -> None:
        store = tmp_path / f"store-{len([*tmp_path.glob('store-*')])}"
        given = (_Outputs(), ranks, str(store), body, arguments)
        mp.start_processes(_enter_rank, given, ranks, start_method="forkserver")

    return run


@pytest.fixture
def forked_hnc_ds() -> Callable[..., None]:
    """``experiments.presets.hnc_ds``, in processes that fork from the server of the ranks."""
    multiprocessing.set_forkserver_preload(PRELOADED)

    def run(arguments: str, log: Path | None = None, at_once: int | None = None) -> None:
        given = shlex.split(arguments), log or Path(os.devnull)
        child = multiprocessing.get_context("forkserver").Process(target=_enter_command, args=given)
        child.start()
        child.join()
        assert child.exitcode == 0, f"hnc-ds {arguments}\n{log.read_text() if log else ''}"

    return run


def _enter_command(arguments: list[str], log: Path) -> None:
    from hnc_ds.cli import main

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        for descriptor in (1, 2):
            os.dup2(output.fileno(), descriptor)
    torch.set_num_threads(1)
    sys.argv = ["hnc-ds", *arguments]
    sys.exit(main())


class _Outputs:
    """Standard output and error of the test, which the server does not share; unpickling sets
    them in the rank."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_outputs, (reduction.DupFd(1), reduction.DupFd(2))


def _set_outputs(*descriptors: Any) -> None:
    for target, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor.detach(), target)


def _enter_rank(
    rank: int,
    _: None,
    ranks: int,
    store: str,
    body: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks)
    try:
        body(*arguments)
    finally:
        destroy_process_group()
