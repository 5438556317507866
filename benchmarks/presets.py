"""Objectives side by side on rendered scenes: the same start, the same pictures, the same steps.

    python benchmarks/presets.py                   hours on two cores; goes on where it was stopped
    python benchmarks/presets.py --seeds 0 --only clip hnc-alpha-1

For each seed, plain CLIP is trained first; every objective then goes on from it with the same
pictures and captions in the same order. Not a part of `make bench`: it measures models, not speed.
"""

import os
import sys

if __name__ == "__main__" and not __package__:  # started by path: find benchmarks and hnc_ds
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import msgspec
import tyro

from hnc_ds.errors import UserError, did_you_mean
from hnc_ds.records import Result
from hnc_ds.whole_files import write_whole

OBJECTIVES = {
    "clip": "--preset clip",
    "hnc-alpha-0.5": "--preset hnc --alpha 0.5",
    "hnc-alpha-1": "--preset hnc --alpha 1",
    "hnc-alpha-2": "--preset hnc --alpha 2",
    "hnc-alpha-5": "--preset hnc --alpha 5",
    "negclip": "--preset negclip",
    "structure-clip": "--preset structure-clip",
    "dpo": "--preset dpo",
    "hnc-distill": "--preset hnc --terms contrastive 1 distill 0.5 --no-distill_negatives",
    "hnc-l2-to-start": "--preset hnc --terms contrastive 1 l2_to_start 0.001",
}
"""What is compared, as flags of a training."""

SCENES = "--size 64 --objects 2 3 --shapes 6 --colours 8 --patterned 0 --namesakes 0 --overlaps 0"
CAPTIONS = "--by-colour 1"
TYPES = (
    "swap 6 relation_attr_pred 6 relation_pred 2 relation_attr_subj 1 relation_attr_obj 1 "
    "relation_subj 0.2 relation_obj 0.2 swap_attribute 1 attribute 1 object 1 attribute_subg 1 "
    "and_logic_rel 0.5 obj_verify_count 0.5"
)
"""Every caption type of the scenes but two, those of relations drawn most often."""

DRAWN = f"--crop 1 --hard_negatives 4 --workers 0 --negative_types {TYPES}"
DEEPSPEED = {
    "train_batch_size": 128,
    "optimizer": {
        "type": "AdamW",
        "params": {
            "lr": 1.5e-3,
            "betas": [0.9, 0.98],
            "eps": 1e-6,
            "weight_decay": 0.1,
            "torch_adam": True,
            "fused": True,
        },
    },
    "scheduler": {
        "type": "WarmupCosineLR",
        "params": {"total_num_steps": "auto", "warmup_num_steps": 50, "warmup_type": "linear"},
    },
    "gradient_clipping": 1.0,
    "zero_optimization": {"stage": 1},
}

Key = tuple[str, str, str]
"""Benchmark, metric, group."""


@dataclass(frozen=True)
class Settings:
    """Compare objectives on rendered scenes."""

    out: Path = Path("runs/presets")
    """Folder of the runs and of presets.md."""

    scenes: Path = Path("data/presets")
    """Folder of pictures, captions and shards."""

    train: int = 12000
    """Training scenes."""

    val: int = 1000
    """Held-out scenes."""

    start_steps: int = 1000
    """Steps of plain CLIP before the comparison."""

    steps: int = 5000
    """Steps of every objective."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of start weights and order."""

    only: tuple[str, ...] = ()
    """Objectives; all when none is named."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in OBJECTIVES:
                raise UserError(
                    f"no objective '{name}'{did_you_mean(name, OBJECTIVES)}; "
                    f"there are {', '.join(OBJECTIVES)}"
                )


def run(settings: Settings) -> None:
    """Make what is missing, train what is not trained, and write the table of what is there."""
    prepare(settings)
    chosen = settings.only or tuple(OBJECTIVES)
    for seed in settings.seeds:
        start = train(settings, "start", seed, "--preset clip", settings.start_steps, None)
        for name in chosen:
            folder = train(settings, name, seed, OBJECTIVES[name], settings.steps, start)
            evaluate(settings, folder)
            write_table(settings, chosen)


def prepare(settings: Settings) -> None:
    """Scenes, captions and shards; each stage goes on where it was stopped."""
    data = settings.scenes
    _hnc_ds(f"scenes --out {data} --train {settings.train} --val {settings.val} {SCENES}")
    for split in ("train", "val"):
        captions = data / f"{split}.captions.jsonl.gz"
        if not captions.is_file():
            graphs = data / f"{split}_sceneGraphs.json"
            _hnc_ds(f"generate --scene-graphs {graphs} --out {captions} {CAPTIONS}")
        out = data / "shards" / split
        _hnc_ds(f"pack --captions {captions} --images {data / 'images'} --out {out}")


def train(
    settings: Settings, name: str, seed: int, objective: str, steps: int, start: Path | None
) -> Path:
    """The last checkpoint of a run, trained or taken up again where it is not finished."""
    folder = settings.out / f"{name}-{seed}"
    last = folder / "checkpoints" / f"step-{steps:06d}"
    if not (last / "state.json").is_file():
        settings.out.mkdir(parents=True, exist_ok=True)
        config = settings.out / "deepspeed.json"
        write_whole(config, json.dumps(DEEPSPEED, indent=1).encode())
        model = f"--model local-dir:{start.resolve()}" if start else ""
        _hnc_ds(
            f"train --deepspeed_config {config} --shards {settings.scenes / 'shards' / 'train'} "
            f"--run {folder} --steps {steps} --seed {seed} --save_every 500 --log_every 50 "
            f"{model} {objective} {DRAWN} --resume"
        )
    return last


def evaluate(settings: Settings, checkpoint: Path) -> None:
    """Score a checkpoint on the held-out scenes."""
    out = results_of(checkpoint)
    if not out.is_file():
        _hnc_ds(f"evaluate {checkpoint} --shards {settings.scenes / 'shards' / 'val'} --out {out}")


def results_of(checkpoint: Path) -> Path:
    """Where the scores of a checkpoint lie."""
    return checkpoint.parent.parent / "results" / f"{checkpoint.name}.json"


def write_table(settings: Settings, names: tuple[str, ...]) -> None:
    """presets.md: percent, means over the seeds that are there, smallest to largest in brackets."""
    found = {name: scores(settings, name) for name in names}
    keys = [key for key in _first(found) if key[1] != "ties" and "margin" not in key[1]]
    counts = {len(of_seeds) for of_seeds in found.values()}
    head = f"| percent, {'/'.join(map(str, sorted(counts)))} seeds | {' | '.join(found)} |"
    rows = [
        f"| {key[1]} {key[2]} | {' | '.join(_cell(found[name], key) for name in found)} |"
        for key in keys
    ]
    lines = [head, "|---" * (len(found) + 1) + "|", *rows]
    write_whole(settings.out / "presets.md", "".join(f"{line}\n" for line in lines).encode())


def scores(settings: Settings, name: str) -> list[dict[Key, float]]:
    """Of each seed that has been measured."""
    last = f"step-{settings.steps:06d}.json"
    paths = [settings.out / f"{name}-{seed}" / "results" / last for seed in settings.seeds]
    return [
        {
            (row.benchmark, row.metric, row.group): row.value
            for row in msgspec.json.decode(path.read_bytes(), type=list[Result])
        }
        for path in paths
        if path.is_file()
    ]


def _first(found: dict[str, list[dict[Key, float]]]) -> list[Key]:
    return next((list(of_seeds[0]) for of_seeds in found.values() if of_seeds), [])


def _cell(of_seeds: list[dict[Key, float]], key: Key) -> str:
    values = [100 * each[key] for each in of_seeds if key in each]
    if not values:
        return "-"
    return f"{mean(values):.1f} ({min(values):.1f} - {max(values):.1f})"


def _hnc_ds(arguments: str) -> None:
    print(f"\n$ hnc-ds {arguments}", flush=True)
    command = [sys.executable, "-m", "hnc_ds.cli", *shlex.split(arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    if subprocess.run(command, check=False, env=environment).returncode:
        raise UserError(f"'hnc-ds {arguments.split()[0]}' failed; see above")


def main() -> int:
    """0, or 2 for what the user can mend."""
    try:
        run(tyro.cli(Settings))
    except UserError as error:
        print(f"presets: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
