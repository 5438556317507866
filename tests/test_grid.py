"""Combinations of a grid, as flags that training takes."""

import json
from pathlib import Path
from typing import Any

import pytest

from hnc_ds.config import GridConfig
from hnc_ds.errors import UserError
from hnc_ds.grid import grid
from hnc_ds.train import parse

EXAMPLE = Path(__file__).parents[1] / "slurm" / "grid.example.json"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return tmp_path / "grid.json"


def flags_of(file: Path, number: int, capsys: pytest.CaptureFixture[str], **more: Any) -> list[str]:
    grid(GridConfig(grid=file, number=number, **more))
    return capsys.readouterr().out.splitlines()


def test_every_combination_has_a_number_and_a_name_of_what_varies(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "alpha": [0.5, 2],
        "preset": "hnc",
        "negative_types": ["swap 1", "swap 1 attribute 2"],
    }
    written.write_text(json.dumps(content))
    grid(GridConfig(grid=written, out=Path("sweep")))
    assert capsys.readouterr().out.splitlines() == [
        "0  sweep/alpha=0.5_negative_types=swap-1",
        "1  sweep/alpha=0.5_negative_types=swap-1-attribute-2",
        "2  sweep/alpha=2_negative_types=swap-1",
        "3  sweep/alpha=2_negative_types=swap-1-attribute-2",
    ]
    flags = flags_of(written, 1, capsys, out=Path("sweep"))
    assert flags[:2] == ["--run", "sweep/alpha=0.5_negative_types=swap-1-attribute-2"]
    config = parse(flags)
    assert config.loss.alpha == 0.5
    assert config.data.negative_types == {"swap": 1, "attribute": 2}


def test_a_learning_rate_is_a_flag_beside_deepspeeds_json(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written.write_text(json.dumps({"lr": [1e-5, 5e-6], "tau": [None, 0.07]}))
    flags = flags_of(written, 2, capsys, out=tmp_path / "s", deepspeed_config=Path("zero2_bf16"))
    assert flags[1] == str(tmp_path / "s" / "lr=5e-06_tau=default")
    assert "--tau" not in flags  # null leaves the flag out
    config = parse(flags)
    assert config.optimizer.lr == 5e-6
    assert config.deepspeed_config == EXAMPLE.parents[1] / "ds_configs" / "zero2_bf16.json"
    assert not (tmp_path / "s").exists()


def test_the_example_is_a_grid_of_six(capsys: pytest.CaptureFixture[str]) -> None:
    grid(GridConfig(grid=EXAMPLE))
    assert capsys.readouterr().out.count("\n") == 6


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[1]", "not a grid"),
        ("{", "not a JSON file"),
        ('{"alhpa": [1]}', "no setting 'alhpa'; did you mean 'alpha'"),
        ('{"run": ["a", "b"]}', "no setting 'run'"),
        ('{"alpha": []}', "alpha has no values"),
    ],
)
def test_what_is_no_grid_is_reported(written: Path, content: str, expected: str) -> None:
    written.write_text(content)
    with pytest.raises(UserError, match=expected):
        grid(GridConfig(grid=written, number=0))


def test_a_number_beyond_the_last_is_refused(written: Path) -> None:
    written.write_text('{"alpha": [1, 2]}')
    with pytest.raises(UserError, match="has 2 combinations, 0 to 1"):
        grid(GridConfig(grid=written, number=2))
