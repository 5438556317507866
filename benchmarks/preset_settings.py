"""The flags of presets.py, and the folders that follow from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.preset_protocol import COMPARISONS, OBJECTIVES, Counts
from hnc_ds.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Settings:
    """Compare objectives on rendered scenes."""

    out: Path = Path("runs/presets")
    """Folder of the runs and their logs."""

    scenes: Path = Path("data/presets")
    """Folder of pictures, captions and shards."""

    pictures: Literal["mixed", "three"] = "mixed"
    """Of the second stage and of the test: of two or three things, or all of three."""

    train: int | None = None
    """Training scenes of each kind; 40,000, or 120,000 where all are of three."""

    val: int = 2000
    """Held-out scenes of each kind."""

    start_steps: int = 200
    """Steps of plain CLIP before the comparison."""

    first_steps: int = 1500
    """Steps of every objective with captions in full."""

    steps: int | None = None
    """Steps of every objective after that, with all types; 2,500, or 12,500 where all pictures are
    of three."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of start weights and order."""

    only: tuple[str, ...] = ()
    """Objectives; when none is named, all, or those that are compared on pictures of three."""

    at_once: int = 2
    """Trainings that run beside each other."""

    page: Path | None = None
    """Where the tables go: of all objectives benchmarks/PRESETS.md, on pictures of three
    PRESETS_THREE.md; else a file of that name in OUT."""

    tables_only: bool = False
    """Write the page of what is recorded, and train nothing."""

    def __post_init__(self) -> None:
        for name in self.only:
            if name not in OBJECTIVES:
                raise UserError(
                    f"no objective '{name}'{did_you_mean(name, OBJECTIVES)}; "
                    f"there are {', '.join(OBJECTIVES)}"
                )

    def counts(self) -> Counts:
        """Of pictures and steps."""
        usual = COMPARISONS[self.pictures]
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
        """Of a kind of scenes, train or val."""
        return self.data(kind) / "shards" / split

    def run(self, name: str, seed: int) -> Path:
        """Folder of a training."""
        return self.out / self.pictures / f"{name}-{seed}"

    def checkpoint(self, name: str, seed: int, steps: int) -> Path:
        """The last one of a training."""
        return self.run(name, seed) / "checkpoints" / f"step-{steps:06d}"

    def results(self, name: str, seed: int) -> Path:
        """Where the scores of a training lie."""
        return self.run(name, seed) / "results" / f"step-{self.counts().steps:06d}.json"

    def log(self, name: str, seed: int) -> Path:
        """What a training printed."""
        return self.out / self.pictures / "logs" / f"{name}-{seed}.log"

    def chosen(self) -> tuple[str, ...]:
        """Names of the objectives."""
        return self.only or COMPARISONS[self.pictures].objectives
