"""Write a folder of rendered scenes: pictures and their exact scene graphs.

    hnc-ds scenes --out data/scenes --train 4000 --val 500 --seed 0

    OUT/train_sceneGraphs.json, OUT/val_sceneGraphs.json   GQA's layout
    OUT/images/t000000.jpg ..., v000000.jpg ...            train and val pictures
    OUT/scenes.json                                        the settings; written last

Until it is complete the settings lie in scenes.unfinished.json, so that an interrupted call can
be repeated: pictures that are there stay, and every scene depends on its number alone.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from tqdm import tqdm

from hnc_ds.config import ScenesConfig
from hnc_ds.errors import UserError
from hnc_ds.output_lock import only_writer
from hnc_ds.records import SceneObject
from hnc_ds.scenes.drawing import jpeg
from hnc_ds.scenes.layout import Scene, compose
from hnc_ds.scenes.palette import COLOURS
from hnc_ds.scenes.relations import scene_objects
from hnc_ds.scenes.shapes import SHAPES
from hnc_ds.whole_files import NO_ROOM, remove_leftovers, whole_file, write_whole
from hnc_ds.worker_processes import WorkerPool

DRAWING_VERSION = 1
"""Raise it when the same settings would give other pictures or graphs."""

COMPLETE = "scenes.json"
UNFINISHED = "scenes.unfinished.json"
SPLITS = ("train", "val")
CHUNK = 32
"""Scenes that a process is handed at a time."""


class Job(NamedTuple):
    """One scene to make."""

    split: str
    number: int

    @property
    def image_id(self) -> str:
        return f"{self.split[0]}{self.number:06d}"


class Made(NamedTuple):
    """What is known of a scene that was made."""

    entry: bytes
    """Its part of the JSON file."""
    relations: int


Mapper = Callable[[Callable[[Job], Made], list[Job]], Iterable[Made]]


def write_scenes(config: ScenesConfig) -> None:
    """Write the pictures and scene graphs of both splits, or finish a call that was interrupted.

    The bytes depend on the settings alone, not on workers or earlier calls. A complete folder
    made with the same settings is left as it is.

    Raises:
        UserError: The folder holds something else, more shapes or colours are asked for than
            there are, the folder cannot be written, or another process writes it.
    """
    _check_stock(config)
    settings = _settings(config)
    if _is_complete(config, settings):
        print(f"scenes: {config.out} holds these scenes already; nothing to do")
        return
    with only_writer(config.out):
        _write(config, settings)


def _write(config: ScenesConfig, settings: bytes) -> None:
    try:
        (config.out / "images").mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            remove_leftovers(config.out / _graphs_name(split), alone=True)
        write_whole(config.out / UNFINISHED, settings)
        relations = _write_splits(config)
        os.replace(config.out / UNFINISHED, config.out / COMPLETE)
    except OSError as error:
        what = "make room" if error.errno in NO_ROOM else "see to it"
        raise UserError(
            f"{error.filename or config.out}: cannot be written ({error.strerror}); "
            f"{what} and repeat the command, it goes on where it stopped"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            f"{config.out}: a worker process was killed, perhaps for memory; "
            "repeat the command with fewer --workers, it goes on where it stopped"
        ) from error
    print(
        f"scenes: {config.train} train and {config.val} val pictures of {config.size} px "
        f"in {config.out} ({relations} relations)"
    )


def _check_stock(config: ScenesConfig) -> None:
    for name, wanted, stock in (
        ("shapes", config.shapes, SHAPES),
        ("colours", config.colours, COLOURS),
    ):
        if wanted > len(stock):
            raise UserError(f"{name} is {wanted}; there are {len(stock)}: {', '.join(stock)}")


def _settings(config: ScenesConfig) -> bytes:
    """All that the bytes depend on, as JSON."""
    settings = {"drawing_version": DRAWING_VERSION} | asdict(config)
    del settings["out"], settings["workers"]
    return msgspec.json.format(msgspec.json.encode(settings))


def _is_complete(config: ScenesConfig, settings: bytes) -> bool:
    """Whether the folder holds exactly these scenes; False if they are still to be made there.

    Raises:
        UserError: It holds something that would be mixed up with them.
    """
    out = config.out
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder with --out")
    if not out.is_dir() or not any(out.iterdir()):
        return False
    marker = next((out / m for m in (COMPLETE, UNFINISHED) if (out / m).is_file()), None)
    if marker is None:
        raise UserError(f"{out}: holds no scenes but other files; give another folder with --out")
    if marker.read_bytes() != settings:
        raise UserError(
            f"{marker}: the scenes there have other settings; "
            "give another folder with --out, or remove this one"
        )
    wanted = {f"{job.image_id}.jpg" for split in SPLITS for job in _jobs(config, split)}
    return (
        marker.name == COMPLETE
        and all((out / _graphs_name(split)).is_file() for split in SPLITS)
        and (out / "images").is_dir()
        and wanted <= set(os.listdir(out / "images"))
    )


def _graphs_name(split: str) -> str:
    return f"{split}_sceneGraphs.json"


def _jobs(config: ScenesConfig, split: str) -> list[Job]:
    return [Job(split, number) for number in range(getattr(config, split))]


def _write_splits(config: ScenesConfig) -> int:
    """Make every picture that is not there and both JSON files; gives the number of relations."""
    relations = 0
    with (
        _mapper(min(config.workers, (config.train + config.val) // CHUNK)) as apply,
        tqdm(total=config.train + config.val, desc="scenes", disable=None) as progress,
    ):
        for split in SPLITS:
            path = config.out / _graphs_name(split)
            with whole_file(path) as file:
                separator = b"{\n"
                for made in apply(partial(_make, config), _jobs(config, split)):
                    file.write(separator + made.entry)
                    separator = b",\n"
                    relations += made.relations
                    progress.update()
                file.write(b"\n}\n" if separator == b",\n" else b"{}\n")
    return relations


@contextmanager
def _mapper(workers: int) -> Iterator[Mapper]:
    """A ``map`` in order, over processes where there are several. They are spawned: the
    caller may have threads, which a fork would not survive."""
    if workers < 2:
        yield map
        return
    with WorkerPool(workers) as pool:
        yield partial(pool.map, chunksize=CHUNK)


def _make(config: ScenesConfig, job: Job) -> Made:
    """Compose a scene, paint it unless its picture is there, and describe it."""
    scene = compose(config, _generator(config.seed, job, stage=0))
    picture = config.out / "images" / f"{job.image_id}.jpg"
    if not _is_whole(picture):
        part = picture.with_suffix(".part")
        part.write_bytes(jpeg(scene, _generator(config.seed, job, stage=1)))
        os.replace(part, picture)
    objects = graph(scene, job.image_id)
    entry = {"width": scene.size, "height": scene.size, "objects": objects}
    return Made(
        msgspec.json.encode(job.image_id) + b":" + msgspec.json.encode(entry),
        sum(len(thing.relations) for thing in objects.values()),
    )


def _generator(seed: int, job: Job, stage: int) -> np.random.Generator:
    """A stream of its own for every (seed, split, number, stage): counters far apart."""
    key = np.array([seed, SPLITS.index(job.split)], dtype=np.uint64)
    counter = np.array([0, 0, stage, job.number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def graph(scene: Scene, image_id: str) -> dict[str, SceneObject]:
    """The exact scene graph's objects by id, in the scene's random order."""
    place = {thing: i for i, thing in enumerate(scene.order)}
    things = [scene.things[i] for i in scene.order]
    return scene_objects(
        ids=[f"{image_id}-{i}" for i in range(len(things))],
        names=[thing.kind.name for thing in things],
        attributes=[
            [word for word in (thing.kind.colour, thing.kind.pattern) if word] for thing in things
        ],
        boxes=[thing.box for thing in things],
        facts=[
            fact._replace(subject=place[fact.subject], object=place[fact.object])
            for fact in scene.facts
        ],
        size=scene.size,
    )


def _is_whole(picture: Path) -> bool:
    """Whether a picture is there up to JPEG's end mark."""
    try:
        return picture.read_bytes()[-2:] == b"\xff\xd9"
    except FileNotFoundError:
        return False
