"""Settings of what serves clusters."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hnc_ds.config.checks import Settings, at_least


@dataclass(frozen=True, kw_only=True)
class DoctorConfig(Settings):
    """Look at a machine, or at all nodes of a job (hnc_ds/doctor)."""

    shards: str | None = None
    """Folder or URL of shards that every rank must be able to read."""

    disk: Path = Path("runs")
    """Folder where runs will be written; all ranks must see it."""

    need_gb: float = 20
    """Gigabytes that must be free there."""

    patience: float = 40
    """Seconds after which a check that does not end is given up, and its rank named."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, need_gb=self.need_gb)
        at_least(1, patience=self.patience)


@dataclass(frozen=True, kw_only=True)
class GridConfig(Settings):
    """List the combinations of a grid of trainings (hnc_ds/grid.py)."""

    grid: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="GRID.json")]]
    """A JSON object: flags of 'hnc-ds train', and lr, with a value or a list of values each."""

    out: Path = Path("runs/sweep")
    """Folder of the runs."""

    number: int | None = None
    """Print the flags of this combination, counted from 0, a word a line."""

    deepspeed_config: Path | None = None
    """DeepSpeed's JSON, a path or a name in ds_configs; of a grid with lr, copies go to --out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, number=self.number or 0)
