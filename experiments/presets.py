"""Objectives side by side on rendered scenes: the same start, the same images, the same steps.

    python experiments/presets.py                  hours on two cores; resumes where it was stopped,
                                                   also elsewhere, with what PRESETS.json holds
    python experiments/presets.py --images three  two objectives for longer, PRESETS_THREE.md
    python experiments/presets.py --seeds 0 --only clip hnc-alpha-1

For each seed a small plain CLIP is trained. Every objective continues from it with the same images
and captions in the same order: first images of two things with captions that name both in full,
from which order is learned soonest, then images of two or three, or all of three, with captions
of all types. Not a part of `make bench`: it measures models, not speed.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find the packages
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import tyro

from experiments.preset_protocol import (
    COMPARISONS,
    DEEPSPEED,
    DRAWN,
    FIRST,
    KINDS,
    MODEL,
    OBJECTIVES,
    protocol,
)
from experiments.preset_records import Records
from experiments.preset_settings import Settings
from experiments.preset_tables import read, tables
from hnc_ds.atomic_files import atomic_write
from hnc_ds.demo import PLAIN_SHAPES
from hnc_ds.errors import UserError
from hnc_ds.launch import cores
from speed.machine import facts

HERE = Path(__file__).parent

CONFIG = "deepspeed.json"

_S = TypeVar("_S")

HEAD = """# Objectives on rendered scenes

Written by `python experiments/presets.py --images {images}`. Held-out scenes; percent,
means over the seeds and, in brackets, the smallest and the largest. In the first table each type
of a column counts alike.

Trained: per seed plain CLIP for {start_steps} steps, then every objective from there, for
{first_steps} steps on {first}, and for {steps}
steps on {then}, its start model then being its own;
{train} images of each kind, batches of {batch}, one process. Made with {machine}.

{objectives}

"""


def run(settings: Settings) -> None:
    """Make what is missing, train what is not trained, and write the tables of what is there."""
    folder = settings.out if settings.only else HERE
    out = settings.page or folder / COMPARISONS[settings.images].page
    records = Records(out.with_suffix(".json"), protocol(settings.images, settings.counts()))
    wanted = [(name, seed) for seed in settings.seeds for name in settings.chosen()]
    jobs = [job for job in wanted if not (settings.tables_only or records.scores(*job))]
    settings.out.mkdir(parents=True, exist_ok=True)
    atomic_write(settings.out / CONFIG, json.dumps(DEEPSPEED, indent=1).encode())
    for kind in (FIRST, settings.images) if jobs else ():
        prepare(settings, kind)
    seeds = dict.fromkeys(seed for _, seed in jobs)
    in_turns(settings.at_once, partial(start, settings), [(seed,) for seed in seeds])
    in_turns(settings.at_once, partial(compare, settings, records), jobs)
    atomic_write(out, page(settings, records).encode())
    print(f"wrote {out}")


def prepare(settings: Settings, kind: str) -> None:
    """Scenes, captions and shards; what is there already is kept."""
    data, counts = settings.data(kind), settings.counts()
    numbers = f"--train {counts.train} --val {counts.val}"
    hnc_ds(f"scenes --out {data} {numbers} {PLAIN_SHAPES} {KINDS[kind].scenes}")
    for split in ("train", "val"):
        graphs, captions = data / f"{split}_sceneGraphs.json", data / f"{split}.captions.jsonl.gz"
        hnc_ds(f"generate --scene-graphs {graphs} --out {captions} --by-colour 1")
        out = settings.shards(kind, split)
        hnc_ds(f"pack --captions {captions} --images {data / 'images'} --out {out}")


def in_turns(at_once: int, do: Callable[..., None], jobs: Iterable[tuple[Any, ...]]) -> None:
    """Some at a time; the first that fails stops those that have not begun."""
    with ThreadPoolExecutor(at_once) as pool:
        begun = [pool.submit(do, *job) for job in jobs]
        wait(begun, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
    for job in begun:
        if not job.cancelled():
            job.result()


def start(settings: Settings, seed: int) -> None:
    """A small plain CLIP."""
    objective = f"--preset clip --model {MODEL}"
    train(settings, "start", seed, settings.start_steps, objective, FIRST)


def compare(settings: Settings, records: Records, name: str, seed: int) -> None:
    """Train an objective from the start of a seed, score it on the held-out scenes, and keep the
    scores."""
    counts = settings.counts()
    last = settings.checkpoint("start", seed, counts.start_steps)
    for run, steps, kind in (
        (f"{name}-first", counts.first_steps, FIRST),
        (name, counts.steps, settings.images),
    ):
        objective = f"--model local-dir:{last.resolve()} {OBJECTIVES[name]}"
        train(settings, run, seed, steps, objective, kind)
        last = settings.checkpoint(run, seed, steps)
    out = settings.results(name, seed)
    if not out.is_file():
        log = settings.log(name, seed)
        scenes = f"--shards {settings.shards(settings.images, 'val')} --workers 0"
        hnc_ds(f"evaluate {last} {scenes} --out {out}", log, settings.at_once)
    records.keep(name, seed, read(out))


def train(settings: Settings, name: str, seed: int, steps: int, objective: str, kind: str) -> None:
    """A run, or the rest of it: on a kind of scenes, with its captions."""
    if (settings.checkpoint(name, seed, steps) / "state.json").is_file():
        return
    before, shards = time.monotonic(), settings.shards(kind, "train")
    drawn = f"{DRAWN} --negative_types {KINDS[kind].types}"
    hnc_ds(
        f"train --deepspeed_config {settings.out / CONFIG} --shards {shards} "
        f"--run {settings.run(name, seed)} --steps {steps} --seed {seed} "
        f"--save_every 500 --log_every 50 {drawn} {objective} --resume",
        settings.log(name, seed),
        settings.at_once,
    )
    print(f"{name}, seed {seed}: {steps} steps, {time.monotonic() - before:.0f} s", flush=True)


def hnc_ds(arguments: str, log: Path | None = None, at_once: int | None = None) -> None:
    """Run a command; what it prints is added to a file, if one is given.

    Args:
        arguments: Of hnc-ds.
        log: The file.
        at_once: Commands that run beside each other, if it takes its share of the cores.

    Raises:
        UserError: It failed.
    """
    command = [sys.executable, "-m", "hnc_ds.cli", *shlex.split(arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    if at_once:
        environment["OMP_NUM_THREADS"] = str(max(1, cores() // at_once))
    with open_log(log) as output:
        print(f"$ hnc-ds {arguments}", file=output, flush=True)
        status = subprocess.run(
            command, check=False, env=environment, stdout=output, stderr=output
        ).returncode
    if status:
        where = f"see {log}" if log else "see above"
        raise UserError(f"'hnc-ds {arguments.split()[0]}' failed; {where}")


@contextmanager
def open_log(path: Path | None) -> Iterator[IO[str]]:
    """The file, to be added to; the screen without one."""
    if path is None:
        yield sys.stdout
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        yield file


def page(settings: Settings, records: Records) -> str:
    """What was trained, and what came out."""
    found = {
        name: [scores for seed in settings.seeds if (scores := records.scores(name, seed))]
        for name in settings.chosen()
    }
    machine = facts()
    head = HEAD.format(
        **settings.counts()._asdict(),
        images=settings.images,
        first=KINDS[FIRST].title,
        then=KINDS[settings.images].title,
        batch=DEEPSPEED["train_batch_size"],
        machine=", ".join(f"{name} {machine[name]}" for name in ("Python", "hnc_ds", "torch")),
        objectives="\n".join(
            f"    {name:16} seeds: {len(of_seeds)}  {OBJECTIVES[name]}"
            for name, of_seeds in found.items()
        ),
    )
    return head + tables(found)


def main(name: str, settings: type[_S], do: Callable[[_S], None]) -> int:
    """Read flags and run; 0, or 2 for user errors."""
    try:
        do(tyro.cli(settings))
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main("presets", Settings, run))
