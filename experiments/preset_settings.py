"""Flags of presets.py, and its folders."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.preset_protocol import COMPARISONS, OBJECTIVES, Counts
from hnc_ds.errors import UserError, did_you_mean


def check_objectives(names: Iterable[str], known: Collection[str]) -> None:
    """Raise UserError for a name that is not known, with the nearest one."""
    for name in names:
        if name not in known:
            raise UserError(
                f"no objective '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}"
            )


@dataclass(frozen=True)
class Settings:
    """Compare objectives on rendered scenes."""

    out: Path = Path("runs/presets")
    """Folder of the runs and their logs."""

    scenes: Path = Path("data/presets")
    """Folder of images, captions and shards."""

    images: Literal["mixed", "three"] = "mixed"
    """Images of the second stage and the test: mixed has two or three objects, three has three."""

    train: int | None = None
    """Training scenes of each kind. Default: 40,000, or 120,000 for images of three."""

    val: int = 2000
    """Held-out scenes of each kind."""

    start_steps: int = 200
    """Steps of plain CLIP before the comparison."""

    first_steps: int = 1500
    """Steps of every objective in the first stage, with captions that name objects in full."""

    steps: int | None = None
    """Steps of every objective in the second stage, with all types. Default: 2,500, or 12,500 for
    images of three."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds for initial weights and sample order."""

    only: tuple[str, ...] = ()
    """Names of objectives. Default: all of the comparison."""

    at_once: int = 2
    """Number of trainings that run in parallel."""

    page: Path | None = None
    """Output page. Default: experiments/PRESETS.md or PRESETS_THREE.md for a full comparison, else
    that file name in --out."""

    tables_only: bool = False
    """Only write the page from recorded scores."""

    def __post_init__(self) -> None:
        check_objectives(self.only, OBJECTIVES)

    def counts(self) -> Counts:
        """Numbers of images and steps."""
        usual = COMPARISONS[self.images]
        return Counts(
            self.train or usual.train,
            self.val,
            self.start_steps,
            self.first_steps,
            self.steps or usual.steps,
        )

    def data(self, kind: str) -> Path:
        """Folder of a kind of scenes."""
        return self.scenes / f"{kind}-{self.counts().train}"

    def shards(self, kind: str, split: str) -> Path:
        """Shards of a kind of scenes; split is train or val."""
        return self.data(kind) / "shards" / split

    def run(self, name: str, seed: int) -> Path:
        """Folder of a training."""
        return self.out / self.images / f"{name}-{seed}"

    def checkpoint(self, name: str, seed: int, steps: int) -> Path:
        """Checkpoint of a training after ``steps``."""
        return self.run(name, seed) / "checkpoints" / f"step-{steps:06d}"

    def results(self, name: str, seed: int) -> Path:
        """Results file of a training."""
        return self.run(name, seed) / "results" / f"step-{self.counts().steps:06d}.json"

    def log(self, name: str, seed: int) -> Path:
        """Log file of a training."""
        return self.out / self.images / "logs" / f"{name}-{seed}.log"

    def chosen(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return self.only or COMPARISONS[self.images].objectives
