"""The comparison of objectives: what is put into its table."""

from pathlib import Path

import msgspec
import pytest

from benchmarks.presets import OBJECTIVES, Settings, scores, write_table
from hnc_ds.config import PRESETS
from hnc_ds.errors import UserError
from hnc_ds.records import Result


def measured(settings: Settings, name: str, seed: int, value: float) -> None:
    rows = [
        Result(name, "hnc-shards", 1, metric, "swap", value, 0.0, 1.0, 10)
        for metric in ("pair_accuracy", "margin")
    ]
    path = settings.out / f"{name}-{seed}" / "results" / f"step-{settings.steps:06d}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(msgspec.json.encode(rows))


def test_the_table_has_means_over_the_seeds_that_were_measured(tmp_path: Path) -> None:
    settings = Settings(out=tmp_path, steps=7)
    for seed, value in enumerate((0.5, 0.6)):
        measured(settings, "clip", seed, value)
    assert [len(scores(settings, name)) for name in ("clip", "dpo")] == [2, 0]
    write_table(settings, ("clip", "dpo"))
    assert (tmp_path / "presets.md").read_text().splitlines() == [
        "| percent, 0/2 seeds | clip | dpo |",
        "|---|---|---|",
        "| pair_accuracy swap | 55.0 (50.0 - 60.0) | - |",
    ]


def test_every_preset_is_compared_and_a_misspelt_one_is_refused() -> None:
    used = " ".join(OBJECTIVES.values())
    assert all(f"--preset {name}" in used for name in PRESETS)
    with pytest.raises(UserError, match="no objective 'negclp'; did you mean 'negclip'"):
        Settings(only=("negclp",))
