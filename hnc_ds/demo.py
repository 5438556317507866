"""The whole pipeline on rendered scenes, as the commands a user would type.

    hnc-ds demo

Trains twice from the same initial weights on the same images and captions in the same order: with
alpha 0, which is plain CLIP, and with hard negatives. Evaluates both on held-out scenes. Finished
stages are not repeated. The stages also serve ``demo-llava``; ``prepare`` makes the data of a
training without --shards.
"""

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from hnc_ds.captions.generate import generate
from hnc_ds.checkpoint import checkpoint_folder, complete_checkpoints
from hnc_ds.config import DemoConfig, GenerateConfig, PackConfig, ScenesConfig
from hnc_ds.errors import UserError
from hnc_ds.records import Result
from hnc_ds.scenes.write import write_scenes
from hnc_ds.shards.pack import pack


def prepare(scenes: ScenesConfig, seed: int = 0) -> Path:
    """Render scenes, generate captions, and pack both splits.

    Args:
        scenes: Settings of the scenes; captions and shards are written below the same folder.
        seed: Seed for the captions.

    Returns:
        The folder of train/ and val/ shards.

    Raises:
        UserError: As the stages.
    """
    write_scenes(scenes)
    for split in ("train", "val"):
        captions = scenes.out / f"{split}.captions.jsonl.gz"
        if not captions.is_file():
            generate(
                GenerateConfig(
                    scene_graphs=scenes.out / f"{split}_sceneGraphs.json",
                    out=captions,
                    seed=seed,
                    workers=scenes.workers,
                )
            )
        pack(
            PackConfig(
                captions=captions,
                images=(scenes.out / "images",),
                out=scenes.out / "shards" / split,
                workers=scenes.workers,
            )
        )
    return scenes.out / "shards"


PLAIN_SHAPES = "--size 64 --shapes 6 --colours 8 --patterned 0 --duplicate_shapes 0 --overlaps 0"
"""Plain shapes that lie apart, each kind once in an image."""

SCENES = f"--objects 2 2 {PLAIN_SHAPES}"
"""Two shapes an image: enough for relations, few enough to learn in minutes."""

CAPTIONS = "--types relation_attr_pred swap --by-colour 1"
"""Every relation names its objects by colour and shape, so that no caption fits half of a batch."""

TWO_TYPES = "swap 1 relation_attr_pred 1"
"""Types that a bag of words cannot distinguish from the true caption."""

NEGATIVES = f"--hard_negatives 4 --negative_types {TWO_TYPES} --crop 1"

PRCTL = getattr(ctypes.CDLL(None), "prctl", None)
PR_SET_PDEATHSIG = 1


def hnc_ds(arguments: str) -> None:
    """Run a stage.

    Raises:
        UserError: It failed; its own message is printed above.
    """
    _run([_installed_command("hnc-ds")], arguments)


def caption_and_pack(scenes: Path, split: str, seed: int) -> None:
    """Generate captions of rendered scenes unless they exist, and pack the shards.

    Args:
        scenes: Output folder of 'hnc-ds scenes'; receives the captions and shards/SPLIT.
        split: train or val.
        seed: Seed for the captions.

    Raises:
        UserError: A stage failed; its own message is printed above.
    """
    captions = scenes / f"{split}.captions.jsonl.gz"
    if not captions.is_file():
        graphs = scenes / f"{split}_sceneGraphs.json"
        hnc_ds(f"generate --scene-graphs {graphs} --out {captions} --seed {seed} {CAPTIONS}")
    shards = scenes / "shards" / split
    hnc_ds(f"pack --captions {captions} --images {scenes / 'images'} --out {shards}")


def train_unless_done(folder: Path, steps: int, ranks: int, flags: str) -> None:
    """Train or resume a run with the deepspeed launcher and ds_configs/cpu.json.

    Args:
        folder: Folder of the run.
        steps: Steps of the whole run.
        ranks: Processes; at most one per GPU where there are GPUs.
        flags: Further flags of 'hnc-ds train'.

    Raises:
        UserError: It failed; its own message is printed above.
    """
    import torch

    if complete_checkpoints(folder)[-1:] == [checkpoint_folder(folder, steps)]:
        print(f"{folder}: already trained")
        return
    if torch.cuda.is_available():
        ranks = min(ranks, torch.cuda.device_count())
    _run(
        [_installed_command("deepspeed"), "--num_gpus", str(ranks)],
        f"--log_level error --master_port {_free_port()} --module hnc_ds.train "
        f"--deepspeed_config cpu --run {folder} --steps {steps} {flags} --resume",
    )


def _run(command: list[str], arguments: str) -> None:
    """Print a command as a user would type it, and run it.

    Args:
        command: Program and first arguments.
        arguments: The other arguments, as typed.
    """
    shown = [Path(command[0]).name, *command[1:], *shlex.split(arguments)]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    if status := _status_of([*command, *shlex.split(arguments)]):
        raise UserError(f"'{shlex.join(shown[:2])}' stopped with status {status}; see above")


def _status_of(command: list[str]) -> int:
    """Run a command and return its exit status; SIGTERM it if this process is interrupted."""
    with subprocess.Popen(command, env=_environment(), preexec_fn=_end_with_parent) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Ctrl-C reached both; a second Ctrl-C would abort the child's own clean exit.
            process.terminate()
            process.wait()
            raise


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM to the new process when its parent dies. Linux only."""
    if PRCTL:
        PRCTL(PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment() -> dict[str, str]:
    """DS_ACCELERATOR=cpu without an accelerator, so that DeepSpeed does not warn four times."""
    import torch

    known = {} if torch.accelerator.is_available() else {"DS_ACCELERATOR": "cpu"}
    return known | os.environ


def _installed_command(name: str) -> str:
    """Path of a command installed with this Python, whether or not its folder is on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise UserError(f"no command '{name}' beside {sys.executable}; install hnc-ds again")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


TABLE = (
    ("swap accuracy", "hnc-shards", "pair_accuracy", "swap"),
    ("opposite-relation accuracy", "hnc-shards", "pair_accuracy", "relation_attr_pred"),
    ("image-to-text R@1", "retrieval", "image_to_text_R@1", "all"),
    ("text-to-image R@1", "retrieval", "text_to_image_R@1", "all"),
)
"""(title, benchmark, metric, group) of the rows that the demo prints."""


def demo(config: DemoConfig) -> None:
    """Run every stage and print the results.

    Raises:
        UserError: A stage failed; its own message is printed above.
    """
    data, runs = config.scenes, {"plain-clip": 0.0, "hard-negatives": config.alpha}
    sizes = f"--train {config.train} --val {config.val} --seed {config.seed}"
    hnc_ds(f"scenes --out {data} {sizes} {SCENES}")
    for split in ("train", "val"):
        caption_and_pack(data, split, config.seed)
    for name, alpha in runs.items():
        flags = f"--shards {data / 'shards' / 'train'} --seed {config.seed} --alpha {alpha:g}"
        train_unless_done(config.out / name, config.steps, config.ranks, f"{flags} {NEGATIVES}")
    for name in runs:
        results = config.out / name / "results" / "val.json"
        hnc_ds(f"evaluate {config.out / name} --shards {data / 'shards' / 'val'} --out {results}")
    page = config.out / "report.html"
    hnc_ds(f"report {' '.join(str(config.out / name) for name in runs)} --out {page}")
    _print_table({name: config.out / name / "results" / "val.json" for name in runs})
    print(f"\nreport       {page}\nTensorBoard  tensorboard --logdir {config.out}")


def _print_table(results: dict[str, Path]) -> None:
    columns = {
        name: {
            (row.benchmark, row.metric, row.group): row
            for row in msgspec.json.decode(path.read_bytes(), type=list[Result])
        }
        for name, path in results.items()
    }
    print(f"\n{'on held-out scenes, percent':30}" + "".join(f"{name:>26}" for name in columns))
    for title, *key in TABLE:
        cells = [_cell(rows.get((key[0], key[1], key[2]))) for rows in columns.values()]
        print(f"{title:30}" + "".join(f"{cell:>26}" for cell in cells))


def _cell(row: Result | None) -> str:
    if row is None:
        return "-"
    return f"{row.value:.1%} ({row.low:.1%} to {row.high:.1%})"
